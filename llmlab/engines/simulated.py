"""The simulated engine: our scheduler and pool, a cost model instead of a forward pass, and answers that say so.

`llmlab.load("smollm2-135m", engine="simulated", options={"machine": "h200"})` takes the time that this model should
take on that machine; `llmlab.load("run.jsonl.gz", engine="simulated")` the time that the recorded engine took. It keeps
that pace in real time, so that a notebook sees it stream; runs in a clock of their own are simulated_runs.py.
This file must not know how a step is planned or priced.
"""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import replace
from typing import Any

from llmlab.engines.base import EngineConfig, SamplingParams, StepOutput, checked_options
from llmlab.engines.cost_model import CostModel, RooflineCost, fit
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_worker import Asked, SimulatedWorker
from llmlab.engines.streaming import Answer
from llmlab.engines.what_if import machine_named, room_of
from llmlab.errors import EngineError, RequestError
from llmlab.models import get, kv_bytes_per_token
from llmlab.scheduling.contracts import Policy
from llmlab.trace import FinishReason, Header, Request, Token, Trace
from llmlab.trace.jsonl import is_trace_file

OPTIONS = ("machine", "policy", "kv", "prefix_caching", "jitter", "mean_tokens")
DEFAULT_MACHINE = "laptop"
ANSWER = "This answer is simulated: no model was run, only a clock. "
# About as many characters a token as English has; what a real tokenizer makes of it is another number.
_PIECES = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s+")
# A step that begins this late begins now: the clock does not run to catch up.
MAX_LAG_S = 0.05


class SimulatedEngine:
    """Continuous batching in time, without a model.

    Options: `machine` (of a model: laptop, l4, a100, h100, h200), `policy`, `kv` (blocks, cells, contiguous),
    `prefix_caching`, `jitter` (standard deviation of a step's time, as a share), `mean_tokens` (answers end by
    themselves, after so many tokens on average).

    Raises: EngineError for an option that cannot be; ModelError, TraceError for what is to be simulated.
    """

    name = "simulated"
    chat_template: str | None = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}\n{% endfor %}<assistant>\n"
    bos_token = eos_token = ""

    def __init__(self, config: EngineConfig, *, policy: Policy | None = None) -> None:
        options = _checked(config.options)
        self.epoch_s = time.monotonic()
        room, cost, about = _of_trace(config) if is_trace_file(config.model_path) else _of_model(config, options)
        changes: dict[str, Any] = {
            name: options[name] for name in ("kv", "prefix_caching", "policy") if name in options
        }
        changes |= {"policy": policy} if policy else {}
        self.room = replace(room, **changes)
        self._worker = SimulatedWorker(self.room, cost, seed=config.seed, jitter=float(options.get("jitter", 0.0)))
        self._mean_tokens, self._seed = options.get("mean_tokens"), config.seed
        self._ids: dict[str, int] = {}  # piece -> token id, as they come
        self._pieces: list[str] = []
        self._clock_s = self.epoch_s  # end of the last step
        self._interrupted = threading.Event()
        self.capabilities = self.room.capabilities
        started_at = time.time() - (time.monotonic() - self.epoch_s)
        self.header: Header = self.room.header(engine_version=cost.origin, started_at=started_at, **about)

    # ---- text

    def tokenize(self, text: str) -> list[int]:
        """Pieces of up to six letters, numbered as they come: how many tokens a real model makes is another number."""
        return [self._id(piece) for piece in _PIECES.findall(text)]

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        """Raises: RequestError for an id that no text has brought."""
        for token_id in token_ids:
            if not 0 <= token_id < len(self._pieces):
                raise RequestError(f"Token {token_id} has no text: a simulated engine knows the texts it was sent.")
        return [self._pieces[token_id].encode() for token_id in token_ids]

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[piece]

    # ---- requests

    def add_request(self, request: Request) -> None:
        params = SamplingParams.of(request.sampling)
        num_tokens = len(request.prompt_token_ids)
        limit = min(self.room.max_model_len, self._worker.scheduler.capacity_tokens)
        if num_tokens >= limit:
            raise RequestError(f"Prompt is {num_tokens} tokens, max_model_len is {limit}. Load with a larger --ctx.")
        if params.structure:
            raise RequestError(f"A simulated answer follows no {params.structure}. Ask a real engine: `-e llamacpp`.")
        if request.request_id in self._worker.asked:
            raise RequestError(f"request id {request.request_id!r} is in use; give each request its own.")
        self._worker.add(self._answered(request, params, limit - num_tokens))

    def _answered(self, request: Request, params: SamplingParams, most: int) -> Asked:
        """The request with the answer that it will get."""
        answer, ids = Answer(params, most), self.tokenize(ANSWER)
        chance = random.Random(f"{self._seed} {params.seed} {request.prompt_token_ids}")
        tokens: list[Token] = []
        reason: FinishReason | None = None
        while reason is None:
            token_id = ids[len(tokens) % len(ids)]
            is_end = self._mean_tokens is not None and chance.random() < 1 / self._mean_tokens
            text, reason = answer.push(self._pieces[token_id].encode(), is_end=is_end)
            tokens.append(Token(request_id=request.request_id, token_id=token_id, text=text))
        return Asked(request, tokens, reason, answer.stopped_by)

    def abort_request(self, request_id: str) -> None:
        self._worker.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        return self._worker.has_work

    def interrupt(self) -> None:
        self._interrupted.set()

    # ---- one step

    def step(self) -> StepOutput:
        """Plan, wait as long as the forward pass would take, record."""
        self._interrupted.clear()
        seconds, now_s = self._worker.begin(), time.monotonic()
        begun_s = self._clock_s if now_s - self._clock_s < MAX_LAG_S else now_s
        self._clock_s = begun_s + seconds
        if self._interrupted.wait(max(0.0, self._clock_s - now_s)):
            self._worker.break_off()
            self._clock_s = time.monotonic()
        return self._worker.end(self._clock_s - self.epoch_s)

    def close(self) -> None:
        """Nothing is held."""


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Raises: EngineError for an option this engine does not have."""
    checked_options(options, OPTIONS)
    mean = options.get("mean_tokens")
    if mean is not None and not (isinstance(mean, int | float) and mean >= 1):
        raise EngineError(f"mean_tokens is {mean!r}; it must be 1 or more.")
    return options


def _given(config: EngineConfig) -> dict[str, Any]:
    """Limits that were asked for."""
    wanted = {
        "kv_tokens": config.kv_tokens, "block_size": config.block_size, "token_budget": config.token_budget,
        "max_num_seqs": config.max_num_seqs, "max_model_len": config.max_model_len,
    }  # fmt: skip
    return {name: value for name, value in wanted.items() if value is not None}


def _of_trace(config: EngineConfig) -> tuple[Room, CostModel, dict[str, Any]]:
    """As fast as a recorded engine, and with its room."""
    header = (trace := Trace.load(config.model_path)).header
    about = {"model": header.model, "quant": header.quant, "dtype": header.dtype, "device": header.device}
    return room_of(header, _given(config)), fit(trace), about


def _of_model(config: EngineConfig, options: dict[str, Any]) -> tuple[Room, CostModel, dict[str, Any]]:
    """As fast as a model should be on a machine."""
    from llmlab.models.fit import weights_bytes

    model = get(config.model_path)
    machine = machine_named(options.get("machine", DEFAULT_MACHINE))
    cost = RooflineCost.of(model.config, machine, weights_bytes(model.config, config.quant or "F16"))
    given = _given(config)
    given.setdefault("max_model_len", model.config.max_model_len)
    given.setdefault("kv_tokens", max(4096, config.max_model_len or 0))
    room = Room(**given, kv_token_bytes=kv_bytes_per_token(model.config))
    room = replace(room, token_budget=max(room.token_budget, room.max_num_seqs))
    return room, cost, {"model": model.name, "quant": config.quant or "F16", "device": str(machine)}
