"""How long a step takes: the cost models that stand in for the forward pass of a simulated engine.

LinearCost is fitted to the steps of a trace; RooflineCost follows from a model and the figures of a machine.
This file must not know schedulers or requests: it sees the Work of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from llmlab.errors import TraceError
from llmlab.models import ModelConfig, kv_bytes_per_token
from llmlab.models.tensors import attention_width, num_params
from llmlab.trace import CellDelta, ScheduledRequest, Step, Trace
from llmlab.trace.times import nobody_left, start_s

MIN_STEPS = 20  # a fit to fewer says nothing
NUM_STRETCHES, NUM_REWEIGHTINGS, MAX_WORSE = 6, 12, 0.05
# Columns of the features. Attention alone explains no step: each token goes through all weights, too.
ALWAYS = (0, 4)
OPTIONAL: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2), (1, 2, 3))


class Work(NamedTuple):
    """What one step computes."""

    num_prefill_tokens: int  # recomputed ones too
    num_decode_tokens: int
    # Pairs of a query and a key: what attention computes.
    num_attended: int
    # Tokens whose KV attention reads, each sequence once.
    num_read: int
    # The engine was idle before: the first requests have to get into it, its pipeline has to fill.
    is_cold: bool = False

    @property
    def num_tokens(self) -> int:
        return self.num_prefill_tokens + self.num_decode_tokens


class CostModel(Protocol):
    """Seconds of a step."""

    @property
    def origin(self) -> str:
        """Where its figures come from, for the header of a simulated trace."""

    def seconds(self, work: Work) -> float: ...
    def split(self, num_gpus: int, all_reduce: AllReduce) -> CostModel:
        """The same engine with every layer split over so many GPUs (tensor parallel)."""


@dataclass(frozen=True, slots=True)
class AllReduce:
    """What GPUs that share a layer pay to add up their parts: twice a layer.

    Source: Shoeybi et al., Megatron-LM, arXiv 1909.08053, section 3; the volume is that of a ring.
    """

    num_layers: int
    bytes_per_token: int  # hidden_size x bytes of a number
    # What is left for one of 64 when a step on two H200s (benchmarks/results/vllm_tp2_8b.md, 1 request) is compared
    # with one on one that reads its weights at 80 % of the data sheet's rate.
    latency_s: float = 10e-6
    bytes_per_s: float = 300e9

    @classmethod
    def of(cls, config: ModelConfig) -> AllReduce:
        return cls(config.num_layers, 2 * config.hidden_size)

    def seconds(self, num_tokens: int, num_gpus: int) -> float:
        volume = 2 * (num_gpus - 1) / num_gpus * num_tokens * self.bytes_per_token
        return 2 * self.num_layers * (self.latency_s + volume / self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class LinearCost:
    """A price for each part of the work, in seconds: what a trace of a real engine tells.

    >>> LinearCost(step_s=0.01, prefill_token_s=0.0001, decode_token_s=0.001).seconds(Work(100, 2, 0, 0))
    0.022
    """

    step_s: float
    prefill_token_s: float
    decode_token_s: float
    attended_s: float = 0.0
    cold_s: float = 0.0
    origin: str = "prices"
    num_gpus: int = 1
    all_reduce: AllReduce | None = None

    def seconds(self, work: Work) -> float:
        per_token = work.num_prefill_tokens * self.prefill_token_s + work.num_decode_tokens * self.decode_token_s
        computed = (per_token + work.num_attended * self.attended_s) / self.num_gpus
        shared = self.all_reduce.seconds(work.num_tokens, self.num_gpus) if self.all_reduce else 0.0
        return self.step_s + computed + shared + (self.cold_s if work.is_cold else 0.0)

    def split(self, num_gpus: int, all_reduce: AllReduce) -> LinearCost:
        """What is paid once a step stays: how much of it is launching and how much reading weights, no trace tells."""
        return replace(self, num_gpus=num_gpus, all_reduce=all_reduce, origin=f"{self.origin}, {num_gpus} GPUs")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a processor can do. `efficiency`: the share of both ceilings that real kernels reach."""

    name: str
    flops: float
    bytes_per_s: float
    step_s: float  # launching, scheduling, sampling: what a step takes beside its arithmetic
    efficiency: float = 0.6

    def __str__(self) -> str:
        return f"{self.name}: {self.flops / 1e12:g} TFLOP/s, {self.bytes_per_s / 1e9:g} GB/s"


# Peak figures of data sheets (dense bfloat16); for the laptop, of an ordinary one.
MACHINES = {
    "laptop": Machine("laptop", 2e11, 4e10, 1e-3),
    "l4": Machine("l4", 1.21e14, 3.0e11, 3e-3),
    "a100": Machine("a100", 3.12e14, 2.039e12, 3e-3),
    "h100": Machine("h100", 9.89e14, 3.35e12, 3e-3),
    "h200": Machine("h200", 9.89e14, 4.8e12, 3e-3),
}


@dataclass(frozen=True, slots=True)
class RooflineCost:
    """The slower of arithmetic and memory, and a constant: what a model should take on a machine.

    Source: Williams et al., Roofline, CACM 2009.
    """

    machine: Machine
    num_params: int
    weights_bytes: int
    kv_token_bytes: int
    pair_flops: int  # of one query and one key, all layers and heads
    num_gpus: int = 1
    all_reduce: AllReduce | None = None

    @classmethod
    def of(cls, config: ModelConfig, machine: Machine, weights_bytes: int | None = None) -> RooflineCost:
        """A model in 16 bits, unless its weights take other bytes."""
        params = num_params(config)
        pair_flops = 4 * attention_width(config)
        return cls(machine, params, weights_bytes or 2 * params, kv_bytes_per_token(config), pair_flops)

    @property
    def origin(self) -> str:
        return f"as {self.machine.name}" + (f", {self.num_gpus} GPUs" if self.num_gpus > 1 else "")

    def seconds(self, work: Work) -> float:
        flops = 2 * self.num_params * work.num_tokens + self.pair_flops * work.num_attended
        moved = self.weights_bytes + self.kv_token_bytes * work.num_read
        at_best = max(flops / self.machine.flops, moved / self.machine.bytes_per_s)
        shared = self.all_reduce.seconds(work.num_tokens, self.num_gpus) if self.all_reduce else 0.0
        return self.machine.step_s + at_best / self.machine.efficiency / self.num_gpus + shared

    def split(self, num_gpus: int, all_reduce: AllReduce) -> RooflineCost:
        return replace(self, num_gpus=num_gpus, all_reduce=all_reduce)


def work_of(rows: tuple[ScheduledRequest, ...], num_cells: int | None = None, *, is_cold: bool = False) -> Work:
    """The work of a step. `num_cells`: cells that attention reads for every token, where the cache has cells."""
    prefill = decode = pairs = read = 0
    for row in rows:
        n, before = row.num_tokens, row.num_computed_tokens
        if row.phase == "decode":
            decode += n
        else:
            prefill += n
        pairs += n * before + n * (n + 1) // 2
        read += before + n
    if num_cells is not None:
        pairs, read = (prefill + decode) * num_cells, num_cells
    return Work(prefill, decode, pairs, read, is_cold)


def fit(trace: Trace) -> LinearCost:
    """The prices that explain the steps of a trace: least absolute errors, none negative.

    A step of a busy engine took as long as since the end of the one before, whatever it was busy with; the first one
    after a pause, since its request was sent. A machine that is slower for a while looks like a price of whatever the
    batch did then: a price is believed only if it foretells stretches of the trace that it was not fitted to.

    Raises: TraceError for a trace with too few steps.
    """
    import numpy as np

    observed = list(_observed(trace))
    if len(observed) < MIN_STEPS:
        raise TraceError(
            f"A cost model needs {MIN_STEPS} steps or more, this trace has {len(observed)}. Record a longer run, or "
            "name a machine: machine='laptop'."
        )
    features = np.array([_features(work) for work, _ in observed])
    seconds = np.array([took_s for _, took_s in observed])
    used = _believed(features, seconds)
    step_s, prefill_s, decode_s, attended_s, cold_s = map(float, _prices(features, seconds, used))
    origin = f"as {trace.header.engine} {trace.header.engine_version}".strip()
    return LinearCost(step_s, prefill_s, decode_s, attended_s, cold_s, origin)


def _observed(trace: Trace) -> Iterator[tuple[Work, float]]:
    """The work of each step and the seconds it took."""
    arrivals_s = {request.request_id: request.arrival_s for request in trace.request_records}
    ended_s: float | None = None  # of the step before, while the engine is busy
    is_first = True
    for step, is_idle in zip(trace.step_records, nobody_left(trace.step_records), strict=True):
        begun_s = ended_s
        if ended_s is None:
            sent = [arrivals_s[row.request_id] for row in step.scheduled if row.request_id in arrivals_s]
            begun_s = min(sent, default=None)
            if is_first and trace.header.kv_at_start is not None:  # it may begin in the middle of a busy time
                begun_s = start_s(step)
        if step.scheduled and begun_s is not None and step.t_s > begun_s:
            yield work_of(step.scheduled, _cells(step), is_cold=ended_s is None), step.t_s - begun_s
        ended_s, is_first = (None if is_idle else step.t_s), False


def _cells(step: Step) -> int | None:
    return step.kv.num_attended if isinstance(step.kv, CellDelta) else None


def _features(work: Work) -> list[float]:
    """In the order of the prices of a LinearCost."""
    return [1.0, work.num_prefill_tokens, work.num_decode_tokens, work.num_attended, float(work.is_cold)]


def _believed(features: Any, seconds: Any) -> list[int]:
    """The columns to fit: the fewest whose error on stretches left out is about as small as any."""
    import numpy as np

    choices: list[tuple[int, ...]] = [(*ALWAYS, *more) for more in OPTIONAL]
    stretches = np.array_split(np.arange(len(seconds)), NUM_STRETCHES)
    errors: dict[tuple[int, ...], float] = {}
    for used in choices:
        of_stretches = []
        for left_out in stretches:
            rest = np.delete(np.arange(len(seconds)), left_out)
            prices = _prices(features[rest], seconds[rest], list(used))
            of_stretches.append(float(np.abs(features[left_out] @ prices - seconds[left_out]).mean()))
        errors[used] = float(np.mean(of_stretches))
    smallest = min(errors.values())
    return list(next(used for used in choices if errors[used] <= (1 + MAX_WORSE) * smallest))


def _prices(features: Any, seconds: Any, used: list[int]) -> Any:
    """Least absolute errors, none negative: one slow step is an accident, not a price. Then raised or lowered together,
    so that the steps take as long in all as they did: accidents will happen again.

    Source: iteratively reweighted least squares, Schlossmacher, J. Am. Stat. Assoc. 68 (1973).
    """
    import numpy as np

    smallest = 1e-3 * float(np.median(seconds))
    weights = np.ones(len(seconds))
    for _ in range(NUM_REWEIGHTINGS):
        prices = _non_negative(features * weights[:, None], seconds * weights, used)
        weights = np.maximum(np.abs(features @ prices - seconds), smallest) ** -0.5
    return prices * (seconds.sum() / (features @ prices).sum())


def _non_negative(features: Any, values: Any, used: list[int]) -> Any:
    """Least squares with no negative coefficient: what comes out negative most is left out, until none does.

    >>> import numpy as np
    >>> _non_negative(np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), np.array([3.0, 2.0, 1.0]), [0, 1]).tolist()
    [2.0, 0.0]
    """
    import numpy as np

    scale = np.abs(features).max(axis=0)
    used = [i for i in used if scale[i] > 0]
    found = np.zeros(features.shape[1])
    while used:
        prices, *_ = np.linalg.lstsq(features[:, used] / scale[used], values, rcond=None)
        if prices.min() >= 0:
            found[used] = prices / scale[used]
            break
        used.pop(int(prices.argmin()))
    return found
