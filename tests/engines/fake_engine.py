"""An engine without a model: our scheduler and cell pool, with answers that depend on the prompt alone.

Options: `step_s` and `tokenize_s` (how long they take), `fail_at` (number of a step that raises), `num_cells`, `refuse`
(why it does not load). A part: `policy`.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from llmlab.engines.base import EngineConfig, SamplingParams
from llmlab.engines.streaming import StopMatcher
from llmlab.errors import EngineError, RequestError
from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.policies import ChunkedPrefill
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Capabilities, CellDelta, FinishReason, Header, Request, Step, Token
from llmlab.trace.kv_state import runs

END = 0  # the token that ends an answer


class FakeEngine:
    """Tokens are code points; an answer echoes the prompt over and over, until max_tokens."""

    name = "fake"
    chat_template: str | None = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    bos_token, eos_token = "", ""

    def __init__(self, config: EngineConfig, *, policy: Any = None) -> None:
        defaults = {"step_s": 0.0, "tokenize_s": 0.0, "fail_at": None, "num_cells": 512, "refuse": None}
        self.options = defaults | config.options
        if self.options["refuse"]:
            raise EngineError(self.options["refuse"])
        self.epoch_s = time.monotonic()
        max_num_seqs, budget = config.max_num_seqs or 16, config.token_budget or 64
        self.pool = CellPool(self.options["num_cells"], 2 * max_num_seqs)
        self.scheduler = Scheduler(
            self.pool, policy or ChunkedPrefill(), token_budget=budget, max_num_seqs=max_num_seqs
        )
        self._requests: dict[str, tuple[Sequence, SamplingParams, StopMatcher]] = {}
        self._ended: dict[str, FinishReason] = {}
        self._cells: dict[str, dict[int, int]] = {}  # request -> cell -> position, as of the last step
        self._interrupted = threading.Event()
        self.capabilities = Capabilities(kv="cells", cell_source="predicted", prefix_caching=True, preemption=True)
        self.header = Header(
            engine="fake",
            engine_version="1",
            model=config.model,
            quant=config.quant,
            capabilities=self.capabilities,
            num_cells=self.options["num_cells"],
            max_model_len=config.max_model_len or 256,
            max_num_seqs=max_num_seqs,
            token_budget=budget,
            started_at=time.time() - (time.monotonic() - self.epoch_s),
        )

    def tokenize(self, text: str) -> list[int]:
        time.sleep(self.options["tokenize_s"])
        return [ord(c) for c in text]

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        if wrong := next((i for i in token_ids if i > sys.maxunicode), None):
            raise RequestError(f"token id {wrong} is no character.")
        return [chr(i).encode(errors="replace") for i in token_ids]

    def memory_bytes(self) -> dict[str, int]:
        return {"kv_used": self.options["num_cells"] - self.pool.num_free_blocks}

    def add_request(self, request: Request) -> None:
        params, limit = SamplingParams.of(request.sampling), self.header.max_model_len or 0
        if len(request.prompt_token_ids) >= limit:
            raise RequestError(f"Prompt is {len(request.prompt_token_ids)} tokens, max_model_len is {limit}.")
        seq = Sequence.of(request)
        self.scheduler.add(seq)
        self._requests[request.request_id] = seq, params, StopMatcher(params.stop)

    def abort_request(self, request_id: str) -> None:
        if request_id in self._requests:
            self.scheduler.abort(request_id)
            self._end(request_id, "abort")

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests or self._ended)

    def interrupt(self) -> None:
        self._interrupted.set()

    def step(self) -> Step:
        self._interrupted.clear()
        started = time.monotonic()
        plan = self.scheduler.schedule()
        if plan.step == self.options["fail_at"]:
            raise RuntimeError("the fake engine was told to fail")
        shares = plan.records()
        broken_off = bool(shares) and self.options["step_s"] > 0 and self._interrupted.wait(self.options["step_s"])
        tokens: list[Token] = []
        stopped_by: dict[str, str] = {}
        if broken_off:
            for share in plan.shares:
                self.pool.take_back(share.seq.request_id, share.num_computed_tokens)
        else:
            self.pool.place((share.seq.request_id, share.num_tokens) for share in plan.shares)
            self.scheduler.commit(plan)
            tokens = [self._sample(share.seq, stopped_by) for share in plan.shares if share.samples]
        finished, self._ended = self._ended, {}
        first_written = {} if broken_off else {s.seq.request_id: s.num_computed_tokens for s in plan.shares}
        kv = self._delta(first_written)
        return Step(
            step=plan.step,
            t_s=time.monotonic() - self.epoch_s,
            forward_s=time.monotonic() - started,
            scheduled=() if broken_off else shares,
            num_scheduled_tokens=0 if broken_off else plan.num_tokens,
            **self.scheduler.told(plan),
            finished=finished,
            stopped_by=stopped_by,
            tokens=tuple(tokens),
            kv=kv,
        )

    def _sample(self, seq: Sequence, stopped_by: dict[str, str]) -> Token:
        name = seq.request_id
        _, params, stop = self._requests[name]
        token_id = answer(seq.token_ids[: seq.num_prompt_tokens], seq.num_output_tokens)
        seq.token_ids.append(token_id)
        text = stop.push(chr(token_id))
        if stop.matched is not None:
            stopped_by[name] = stop.matched
            self._finish(name, "stop")
        elif seq.num_output_tokens >= params.max_tokens or seq.num_tokens >= (self.header.max_model_len or 0):
            self._finish(name, "length")
            text += stop.flush()
        return Token(request_id=name, token_id=token_id, text=text)

    def _finish(self, request_id: str, reason: FinishReason) -> None:
        self.scheduler.finish(request_id)
        self._end(request_id, reason)

    def _end(self, request_id: str, reason: FinishReason) -> None:
        del self._requests[request_id]
        self._ended[request_id] = reason

    def _delta(self, first_written: dict[str, int]) -> CellDelta:
        """What changed in the pool since the last step; first_written: request -> first position it computed."""
        seats, now = self.pool.seats(), {}
        for seat, cells in self.pool.cells_by_seat().items():
            now[seats[seat]] = {cell: position for position, cell in enumerate(cells)}
        before, self._cells = self._cells, now
        written: dict[str, tuple[tuple[int, int, int], ...]] = {}
        shared, freed = {}, {}
        for name in before.keys() | now.keys():
            old, new, computed = before.get(name, {}), now.get(name, {}), first_written.get(name, 10**9)
            if lost := [cell for cell in old if new.get(cell) != old[cell]]:
                freed[name] = runs(sorted(lost))
            gained = {cell: position for cell, position in new.items() if old.get(cell) != position}
            if fresh := {cell: position for cell, position in gained.items() if position >= computed}:
                written[name] = tuple((cell, position, 1) for cell, position in fresh.items())
            if also := gained.keys() - fresh:
                shared[name] = runs(sorted(also))
        num_used = len({cell for cells in now.values() for cell in cells})
        return CellDelta(
            written=written, shared=shared, freed=freed,
            num_used=num_used, num_cells=self.pool.num_blocks, num_attended=num_used, head=self.pool.head,
        )  # fmt: skip

    def close(self) -> None:
        self._requests.clear()


def answer(prompt: list[int], index: int) -> int:
    """The token at one place of the answer to a prompt: what stands behind its last ">", over and over."""
    echo = prompt[max((i + 1 for i, token_id in enumerate(prompt) if token_id == ord(">")), default=0) :]
    return echo[index % len(echo)] if echo else ord("?")
