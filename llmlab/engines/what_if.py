"""what_if(): the requests of a trace once more, on a simulated engine that differs in what you name.

Arrivals, prompts, answers and shared prefixes are those of the trace; when each token comes is computed by the real
scheduler and pool with a cost model fitted to the trace itself. This file must not know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from llmlab.engines.cost_model import MACHINES, AllReduce, CostModel, Machine, RooflineCost, fit
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_runs import Split, simulate
from llmlab.engines.simulated_worker import Asked
from llmlab.errors import EngineError, ModelError, TraceError, unknown
from llmlab.models import ModelConfig, get, kv_bytes_per_token
from llmlab.models.tensors import num_params
from llmlab.trace import BlockDelta, FinishReason, Header, Token, Trace

# What `%llm trace replay FILE --what-if` may call shorter.
SHORT = {"block": "block_size", "budget": "token_budget", "seqs": "max_num_seqs", "step_tokens": "token_budget"}
# Of a trace that does not tell its limits.
DEFAULT_ROOM = {"kv_tokens": 16384, "token_budget": 512, "max_num_seqs": 64, "max_model_len": 4096}
LINK_BYTES_PER_S = 5e10  # between machines: 400 Gbit/s


@dataclass(frozen=True, slots=True)
class Workers:
    """How many engines serve, and how they share the work."""

    data_parallel: int = 1
    # GPUs that split each layer of one engine; the KV cache of an engine grows with them.
    tensor_parallel: int = 1
    # Prefill on some workers and decode on others; both or none.
    prefill_workers: int = 0
    decode_workers: int = 0
    link_bytes_per_s: float = LINK_BYTES_PER_S

    def __post_init__(self) -> None:
        for name in ("data_parallel", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise EngineError(f"{name} is {getattr(self, name)!r}; it must be 1 or more.")
        if bool(self.prefill_workers) != bool(self.decode_workers):
            given, missing = ("prefill", "decode") if self.prefill_workers else ("decode", "prefill")
            number = self.prefill_workers or self.decode_workers
            raise EngineError(
                f"{given}_workers is {number} and {missing}_workers is 0: who prefills hands over to who decodes. "
                f"Give {missing}_workers=1 as well, or neither."
            )
        if self.prefill_workers and self.data_parallel > 1:
            raise EngineError("data_parallel shares whole requests, prefill_workers splits them: give one of the two.")

    def split(self, kv_token_bytes: int | None) -> Split | None:
        """Raises: EngineError when nobody knows how many bytes the KV of a token has."""
        if not self.prefill_workers:
            return None
        if kv_token_bytes is None:
            raise EngineError(
                "This trace does not tell the bytes of its KV cache, so a transfer has no price. Name a model: "
                "model='smollm2-135m'."
            )
        return Split(self.prefill_workers, self.decode_workers, kv_token_bytes / self.link_bytes_per_s)


def what_if(
    trace: Trace,
    *,
    engine: str = "simulated",
    cost: CostModel | Trace | None = None,
    machine: str | Machine | None = None,
    model: str | ModelConfig | None = None,
    arrival_scale: float = 1.0,
    seed: int = 0,
    jitter: float = 0.0,
    **changes: Any,
) -> Trace:
    """The trace of the same requests on a simulated engine. Without changes: what the simulator makes of the original.

    Changes of the room: policy ("chunked", "fcfs", "static", or one of yours), kv ("blocks", "cells", "contiguous"),
    kv_tokens, block_size, token_budget, max_num_seqs, max_model_len, prefix_caching. Of the workers: data_parallel,
    tensor_parallel, prefill_workers and decode_workers, link_bytes_per_s. `cost`: prices, or a trace to fit them to;
    `machine` (laptop, l4, a100, h100, h200) with `model`, a name or a shape, computes them instead. `arrival_scale`:
    0.5 = the requests come twice as fast. `jitter`: standard deviation of a step's time, as a share of it.

    >>> import llmlab
    >>> recorded = llmlab.recorded("burst_of_64")
    >>> llmlab.what_if(recorded, policy="static")
    Trace(simulated, smollm2-135m, 64 requests, 240 steps)

    Raises: TraceError for a trace that no prices can be fitted to; EngineError for a change that cannot be;
    PlanRefused when a request can never fit.
    """
    if engine != "simulated":
        raise EngineError(f"What-if replays run on engine='simulated', not {engine!r}: nobody else can foresee.")
    room_changes, workers = _sorted_out(changes)
    config = model if isinstance(model, ModelConfig) else _config(model or trace.header.model, required=bool(model))
    prices = _cost(trace, cost, machine, config)
    kv_token_bytes = kv_bytes_per_token(config) if config and model else _kv_token_bytes(trace.header, config)
    if workers.tensor_parallel > 1:
        if config is None:
            raise EngineError("tensor_parallel needs the layers of a model. Name it: model='smollm2-135m'.")
        prices = prices.split(workers.tensor_parallel, AllReduce.of(config))
    room_changes.setdefault("early_hashes", shares_at_once(trace))
    room = room_of(trace.header, room_changes, workers, kv_token_bytes)
    header = trace.header
    about: dict[str, Any] = {"engine_version": prices.origin, "device": _device(header, workers, machine)}
    about |= {name: getattr(header, name) for name in ("model", "quant", "dtype", "fingerprint")}
    if isinstance(model, ModelConfig):
        about |= {"model": f"{num_params(model) / 1e9:.2g}B-shaped", "quant": None, "fingerprint": None}
    asked = answers_of(trace, arrival_scale)
    split = workers.split(kv_token_bytes)
    return simulate(
        asked, room, prices, num_workers=workers.data_parallel, split=split, seed=seed, jitter=jitter, about=about
    )


def answers_of(trace: Trace, arrival_scale: float = 1.0) -> list[Asked]:
    """Each request with the answer it got, arrivals counted from the first; who got no token is left out.

    Raises: TraceError when nobody got any.
    """
    import msgspec

    tokens: dict[str, list[Token]] = {}
    reasons: dict[str, FinishReason] = {}
    stopped_by: dict[str, str] = {}
    for step in trace.step_records:
        for token in step.tokens:
            tokens.setdefault(token.request_id, []).append(token)
        reasons.update(step.finished)
        stopped_by.update(step.stopped_by)
    served = [request for request in trace.request_records if request.request_id in tokens]
    if not served:
        raise TraceError("No token came out in this trace, so there is no run to replay.")
    first_s = min(request.arrival_s for request in served)
    asked = []
    for request in served:
        name = request.request_id
        sent = msgspec.structs.replace(request, arrival_s=(request.arrival_s - first_s) * arrival_scale)
        # What was broken off ends here when its tokens are out.
        reason: FinishReason = "stop" if reasons.get(name) == "stop" else "length"
        asked.append(Asked(sent, tokens[name], reason, stopped_by.get(name)))
    return asked


def _sorted_out(changes: Mapping[str, Any]) -> tuple[dict[str, Any], Workers]:
    """Raises: EngineError for a change that nobody knows."""
    of_room = [field.name for field in fields(Room) if field.name != "kv_token_bytes"]
    of_workers = [field.name for field in fields(Workers)]
    for name in changes:
        if name not in (*of_room, *of_workers):
            raise EngineError(unknown("change", name, [*of_room, *of_workers, "machine", "model", "arrival_scale"]))
    room = {name: value for name, value in changes.items() if name in of_room}
    return room, Workers(**{name: value for name, value in changes.items() if name in of_workers})


def room_of(
    header: Header, changes: Mapping[str, Any], workers: Workers | None = None, kv_token_bytes: int | None = None
) -> Room:
    """The room of the recorded engine, with the changes.

    Raises: EngineError for a change that cannot be.
    """
    workers = workers or Workers()
    told: dict[str, Any] = {
        "kv_tokens": _kv_tokens(header),
        "block_size": header.block_size,
        "token_budget": header.token_budget,
        "max_num_seqs": header.max_num_seqs,
        "max_model_len": header.max_model_len,
    }
    known = {name: value for name, value in told.items() if value}
    kv = "cells" if header.capabilities.kv == "cells" and "block_size" not in changes else "blocks"
    if workers.data_parallel > 1 or workers.prefill_workers:
        kv = "blocks"
    prefixes = header.capabilities.prefix_caching
    room = {**DEFAULT_ROOM, "kv": kv, "prefix_caching": prefixes, **known, **changes}
    if "kv_tokens" not in changes:
        room["kv_tokens"] *= workers.tensor_parallel
    # An engine's budget is never below its seats.
    if "token_budget" not in changes:
        room["token_budget"] = max(room["token_budget"], room["max_num_seqs"])
    return Room(**room, kv_token_bytes=kv_token_bytes or _kv_token_bytes(header, None))


def shares_at_once(trace: Trace) -> bool:
    """Whether a prefix was found in the very step that computed it."""
    size = trace.header.block_size
    for step in trace.step_records:
        if size and isinstance(step.kv, BlockDelta) and step.kv.cached:
            for request_id, num_tokens in step.prefix_hits.items():
                if not set(step.kv.cached).isdisjoint(step.kv.allocated.get(request_id, ())[: num_tokens // size]):
                    return True
    return False


def _kv_tokens(header: Header) -> int | None:
    if header.num_blocks and header.block_size:
        return header.num_blocks * header.block_size
    return header.num_cells


def _kv_token_bytes(header: Header, config: ModelConfig | None) -> int | None:
    num_tokens = _kv_tokens(header)
    if header.kv_cache_bytes and num_tokens:
        return header.kv_cache_bytes // num_tokens
    return kv_bytes_per_token(config) if config else None


def _config(model: str, *, required: bool) -> ModelConfig | None:
    """None when nobody named the model, and that of the trace is not here."""
    try:
        return get(model).config if model else None
    except ModelError:
        if required:
            raise
        return None


def _cost(
    trace: Trace, cost: CostModel | Trace | None, machine: str | Machine | None, config: ModelConfig | None
) -> CostModel:
    if machine is not None:
        if config is None:
            raise EngineError("A machine needs a model to compute. Name it: model='smollm2-135m'.")
        return RooflineCost.of(config, machine_named(machine))
    if isinstance(cost, Trace) or cost is None:
        return fit(cost or trace)
    return cost


def machine_named(machine: str | Machine) -> Machine:
    """Raises: EngineError for an unknown name."""
    if isinstance(machine, Machine):
        return machine
    if machine not in MACHINES:
        raise EngineError(unknown("machine", machine, MACHINES))
    return MACHINES[machine]


def _device(header: Header, workers: Workers, machine: str | Machine | None) -> str | None:
    device = str(machine_named(machine)) if machine is not None else header.device
    if workers.prefill_workers:
        return f"{workers.prefill_workers} prefill + {workers.decode_workers} decode x {device or 'worker'}"
    number = workers.data_parallel * workers.tensor_parallel
    return f"{number} x {device or 'GPU'}" if number > 1 else device
