"""From what vLLM's scheduler put out to our Step records: who was scheduled, which tokens came out, who ended.

It runs when the steps are fetched, while a GPU computes the next one: what the hooks of the tracer keep are references.
Steps must be recorded in the order they were scheduled. This file must not know blocks or hooks.
Source: vllm/v1/core/sched/output.py SchedulerOutput, vllm/v1/engine/__init__.py EngineCoreOutput.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.vllm_changes import BlockChanges
from llmlab.trace import BlockDelta, FinishReason, Phase, ScheduledRequest, Step, Token

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "abort",
    "error": "error",
    "repetition": "stop",
}


@dataclass(slots=True, eq=False)
class TracedStep:
    """One step of vLLM between its schedule() and its record. Times are time.monotonic(), in seconds."""

    output: Any  # vLLM's SchedulerOutput; it is held so that its id() stays its own
    started_s: float
    scheduled_s: float
    forwarded_s: float = 0.0
    ended_s: float = 0.0
    outputs: Any = None  # what update_from_output() returned: client -> EngineCoreOutputs
    waiting: tuple[str, ...] = ()
    num_waiting: int = 0
    num_running: int = 0
    changes: BlockChanges | None = None
    # Requests that ended in this step, for whatever reason.
    ended: list[str] = field(default_factory=list)
    # Requests that had ended before this step: async scheduling learns it too late.
    dropped: set[str] = field(default_factory=set)
    # request_id -> draft tokens, counted as computed here, that a step before rejected after this one was scheduled.
    num_rejected: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Decoding:
    """The requests of a step that was told as columns: what the next one has, if it is like it."""

    request_ids: list[str]
    num_computed_tokens: list[int]
    num_prompt_tokens: list[int]
    num_output_tokens: list[int]


@dataclass(slots=True)
class _Known:
    """What is remembered of a request from step to step."""

    num_prompt_tokens: int
    num_top: int  # how many of the most likely tokens were asked for; -1: all
    num_output_tokens: int = 0
    was_preempted: bool = False


class StepRecorder:
    """Makes the records. `epoch_s` is the time.monotonic() of t_s = 0; with rows=False only tokens, ends and times."""

    def __init__(self, epoch_s: float, token_budget: int, *, rows: bool) -> None:
        self._epoch_s, self._token_budget, self._has_rows = epoch_s, token_budget, rows
        self._known: dict[str, _Known] = {}
        # While steps are told as columns, this counts the tokens that came out, and _known is behind.
        self._decoding: _Decoding | None = None

    def __contains__(self, request_id: str) -> bool:
        """It was scheduled, and no record has told its end."""
        return request_id in self._known

    def forget(self, request_id: str) -> None:
        self._known.pop(request_id, None)

    def record(self, number: int, step: TracedStep, kv: BlockDelta | None, later: Iterable[TracedStep]) -> Step:
        """The record of a step that has ended. `later`: those after it, which do not know yet what it rejected."""
        self._catch_up()
        preempted = tuple(sorted(r for r in step.output.preempted_req_ids or () if r not in step.dropped))
        hits = self._admit(step, preempted)
        rows = self._rows(step) if self._has_rows else ()
        tokens, finished = self._outputs(step)
        for row in rows:
            if row.num_draft_tokens:
                self._reject(row, tokens, step, later)
        for request_id in step.ended:
            finished.setdefault(request_id, "abort")
            self._known.pop(request_id, None)
        return Step(
            step=number,
            t_s=step.ended_s - self._epoch_s,
            schedule_s=step.scheduled_s - step.started_s,
            forward_s=step.forwarded_s - step.scheduled_s,
            update_s=step.ended_s - step.forwarded_s,
            scheduled=tuple(rows),
            num_scheduled_tokens=sum([row.num_tokens for row in rows]),
            token_budget=self._token_budget if self._has_rows else None,
            waiting=step.waiting,
            num_waiting=step.num_waiting,
            num_running=step.num_running,
            preempted=preempted if self._has_rows else (),
            finished=finished,
            prefix_hits=hits if self._has_rows else {},
            tokens=tuple(tokens),
            kv=kv,
        )

    def columns(self, number: int, step: TracedStep, kv: BlockDelta | None) -> DecodeStep | None:
        """The same as columns, when each request of the step decoded one token and nothing else happened; else None."""
        output, running = step.output, step.output.scheduled_cached_reqs
        request_ids = running.req_ids
        if (
            output.scheduled_new_reqs
            or output.preempted_req_ids
            or output.scheduled_spec_decode_tokens
            or running.resumed_req_ids
            or step.ended
            or step.dropped
            or step.num_rejected
            or not request_ids
            or output.total_num_scheduled_tokens != len(request_ids)
        ):
            return None
        token_ids = _one_token_each(step.outputs, request_ids)
        decoding = self._decoding_now(request_ids, running.num_computed_tokens) if token_ids else None
        if token_ids is None or decoding is None:
            return None
        return DecodeStep(
            step=number,
            t_s=step.ended_s - self._epoch_s,
            schedule_s=step.scheduled_s - step.started_s,
            forward_s=step.forwarded_s - step.scheduled_s,
            update_s=step.ended_s - step.forwarded_s,
            token_budget=self._token_budget if self._has_rows else None,
            waiting=step.waiting,
            num_waiting=step.num_waiting,
            num_running=step.num_running,
            kv=kv,
            request_ids=request_ids,
            num_computed_tokens=decoding.num_computed_tokens,
            num_prompt_tokens=decoding.num_prompt_tokens,
            num_output_tokens=decoding.num_output_tokens,
            token_ids=token_ids,
            texts=[],
        )

    def _decoding_now(self, request_ids: list[str], num_computed_tokens: list[int]) -> _Decoding | None:
        """None when one of them has more than one token to compute. Notes what the next step has, if it is like it."""
        if not self._has_rows:
            return _Decoding(request_ids, [], [], [])
        now = self._decoding
        if not now or now.request_ids != request_ids or now.num_computed_tokens != num_computed_tokens:
            now = self._looked_up(request_ids, num_computed_tokens)
        if now is not None:
            self._decoding = _Decoding(
                request_ids,
                [number + 1 for number in now.num_computed_tokens],
                now.num_prompt_tokens,
                [number + 1 for number in now.num_output_tokens],
            )
        return now

    def _looked_up(self, request_ids: list[str], num_computed_tokens: list[int]) -> _Decoding | None:
        self._catch_up()
        known = [self._known.get(request_id) for request_id in request_ids]
        for each, computed in zip(known, num_computed_tokens, strict=True):
            if each is None or not each.num_output_tokens:
                return None
            if each.num_prompt_tokens + each.num_output_tokens - computed != 1:
                return None
        return _Decoding(
            request_ids,
            num_computed_tokens,
            [each.num_prompt_tokens for each in known if each],
            [each.num_output_tokens for each in known if each],
        )

    def _catch_up(self) -> None:
        last, self._decoding = self._decoding, None
        if last is not None:
            for request_id, num_output_tokens in zip(last.request_ids, last.num_output_tokens, strict=True):
                if request_id in self._known:
                    self._known[request_id].num_output_tokens = num_output_tokens

    def record_outputs(self, number: int, step: TracedStep) -> Step:
        """What must not be lost when the rest of a step cannot be read."""
        self._catch_up()
        tokens, finished = self._outputs(step)
        return Step(step=number, t_s=step.ended_s - self._epoch_s, tokens=tuple(tokens), finished=finished)

    def _admit(self, step: TracedStep, preempted: Iterable[str]) -> dict[str, int]:
        """request_id -> tokens found in the prefix cache, of the requests that this step took in."""
        for request_id in preempted:
            if request_id in self._known:
                self._known[request_id].was_preempted = True
        hits = {}
        for new in step.output.scheduled_new_reqs:
            if new.req_id in step.dropped:
                continue
            if new.req_id not in self._known:
                num_top = getattr(new.sampling_params, "logprobs", None)
                self._known[new.req_id] = _Known(len(new.prompt_token_ids or ()), num_top or 0)
            hits[new.req_id] = new.num_computed_tokens
        cached = step.output.scheduled_cached_reqs
        if cached.resumed_req_ids:
            for request_id, num_computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
                if request_id in cached.resumed_req_ids and request_id not in step.dropped:
                    hits[request_id] = num_computed
        return {request_id: num_hit for request_id, num_hit in hits.items() if num_hit}

    def _rows(self, step: TracedStep) -> list[ScheduledRequest]:
        output, cached = step.output, step.output.scheduled_cached_reqs
        num_tokens, drafts = output.num_scheduled_tokens, output.scheduled_spec_decode_tokens
        num_computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        num_computed.update((new.req_id, new.num_computed_tokens) for new in output.scheduled_new_reqs)
        rows = []
        for request_id, computed in num_computed.items():
            if request_id in step.dropped:
                continue
            known = self._known[request_id]
            if step.num_rejected:
                computed -= step.num_rejected.get(request_id, 0)
            num_output = known.num_output_tokens
            phase: Phase = "recompute" if known.was_preempted else "prefill"
            if num_output and known.num_prompt_tokens + num_output - computed == 1:
                phase = "decode"
            rows.append(
                ScheduledRequest(
                    request_id=request_id,
                    phase=phase,
                    num_tokens=num_tokens[request_id],
                    num_computed_tokens=computed,
                    num_prompt_tokens=known.num_prompt_tokens,
                    num_output_tokens=num_output,
                    num_draft_tokens=len(drafts[request_id]) if request_id in drafts else 0,
                )
            )
        return rows

    def _outputs(self, step: TracedStep) -> tuple[list[Token], dict[str, FinishReason]]:
        tokens: list[Token] = []
        finished: dict[str, FinishReason] = {}
        for outputs in (step.outputs or {}).values():
            for output in outputs.outputs:
                request_id = output.request_id
                if request_id in step.dropped:
                    continue
                known = self._known.get(request_id)
                if known is not None:
                    known.num_output_tokens += len(output.new_token_ids)
                if output.new_logprobs is None:
                    for token_id in output.new_token_ids:
                        tokens.append(Token(request_id=request_id, token_id=token_id))
                else:
                    tokens.extend(_with_logprobs(output, known.num_top if known else 0))
                if output.finish_reason is not None:
                    finished[request_id] = FINISH_REASONS.get(str(output.finish_reason), "error")
        return tokens, finished

    def _reject(
        self, row: ScheduledRequest, tokens: list[Token], step: TracedStep, later: Iterable[TracedStep]
    ) -> None:
        """Correct the later steps that were scheduled as if all drafts of this one were accepted."""
        num_new = sum(token.request_id == row.request_id for token in tokens)
        num_rejected = row.num_draft_tokens - max(0, num_new - 1)
        for other in later:
            if num_rejected > 0 and other.scheduled_s < step.ended_s and row.request_id not in other.dropped:
                other.num_rejected[row.request_id] = other.num_rejected.get(row.request_id, 0) + num_rejected


def says_something(step: Step | DecodeStep) -> bool:
    """False for a step in which nothing happened: vLLM takes one to tell its workers who has ended."""
    if isinstance(step, DecodeStep):
        return True
    kv = step.kv
    moved = isinstance(kv, BlockDelta) and (kv.allocated or kv.freed or kv.cached or kv.evicted or kv.ref_counts)
    return bool(step.scheduled or step.tokens or step.finished or step.preempted or moved)


def _one_token_each(outputs: Any, request_ids: list[str]) -> list[int] | None:
    """The token of each request, when each got one, in this order, and none ended or wants log probabilities."""
    if not outputs or len(outputs) != 1:
        return None
    (of_client,) = outputs.values()
    rows = of_client.outputs
    if [row.request_id for row in rows] != request_ids:
        return None
    token_ids: list[int] = []
    for row in rows:
        if row.new_logprobs is not None or row.finish_reason is not None or len(row.new_token_ids) != 1:
            return None
        token_ids.append(row.new_token_ids[0])
    return token_ids


def _with_logprobs(output: Any, num_top: int) -> Iterable[Token]:
    """The tokens of one request; vLLM's rows hold the sampled token first, then the most likely ones, best first."""
    logprobs = output.new_logprobs
    end = None if num_top < 0 else 1 + num_top
    for i, token_id in enumerate(output.new_token_ids):
        # Rows are as long as the longest that anybody in the batch asked for.
        ids, values = _plain(logprobs.logprob_token_ids[i][:end]), _plain(logprobs.logprobs[i][:end])
        # What a filter cut has -inf, which JSON cannot hold.
        pairs = zip(ids[1:], values[1:], strict=True)
        top = tuple((top_id, value, "") for top_id, value in pairs if math.isfinite(value))
        logprob = values[0] if math.isfinite(values[0]) else None
        yield Token(request_id=output.request_id, token_id=token_id, logprob=logprob, top=top)


def _plain(row: Any) -> list[Any]:
    """A row of a numpy array, or of a list, as plain numbers."""
    return list(row.tolist() if hasattr(row, "tolist") else row)
