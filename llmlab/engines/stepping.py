"""What the engines that plan their own steps have in common: requests, how they end, the record of a step.

This file must not know any model, or where KV lies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from llmlab.engines.base import EngineConfig, StepOutput
from llmlab.engines.streaming import Answer
from llmlab.errors import PartFailed
from llmlab.scheduling.plan import StepPlan
from llmlab.scheduling.scheduler import Scheduler
from llmlab.trace import Capabilities, FinishReason, Header, KvDelta, ScheduledRequest, Step, Token


class Kept(Protocol):
    """What an engine keeps of one request beside its Sequence; it survives preemption."""

    @property
    def answer(self) -> Answer: ...


class Limits(Protocol):
    """What an engine has room for."""

    max_model_len: int
    max_num_seqs: int
    token_budget: int


KeptT = TypeVar("KeptT", bound=Kept)


class SteppingEngine(Generic[KeptT]):
    """The part of an engine between its scheduler and its trace. One thread."""

    name: str
    capabilities: Capabilities
    scheduler: Scheduler

    def __init__(self) -> None:
        self.epoch_s = time.monotonic()
        self._generations: dict[str, KeptT] = {}
        self._ended: dict[str, FinishReason] = {}  # ends that no step has reported yet

    @property
    def started_at(self) -> float:
        """Unix time of epoch_s."""
        return time.time() - (time.monotonic() - self.epoch_s)

    def step(self) -> StepOutput:
        """One scheduling decision and its forward pass.

        Raises: PartFailed, with the number of the step.
        """
        number = self.scheduler.step_number
        try:
            return self._step()
        except PartFailed as error:
            self._start_over()
            raise PartFailed(f"step {number}: {error}") from error

    def _step(self) -> Step:
        raise NotImplementedError

    def _start_over(self) -> None:
        """A part that a student wrote broke its contract: what is not to be trusted any more is made anew."""

    def abort_request(self, request_id: str) -> None:
        if request_id in self._generations:
            self.scheduler.abort(request_id)
            self._forget(request_id, "abort")

    def has_unfinished_requests(self) -> bool:
        return bool(self._generations or self._ended)

    def _end(self, ended: Mapping[str, FinishReason]) -> dict[str, str]:
        """The KV of who has ended is free. request_id -> the stop string that ended it."""
        stopped_by = {}
        for request_id, reason in ended.items():
            if (text := self._generations[request_id].answer.stopped_by) is not None:
                stopped_by[request_id] = text
            self.scheduler.finish(request_id)
            self._forget(request_id, reason)
        return stopped_by

    def _forget(self, request_id: str, reason: FinishReason) -> None:
        del self._generations[request_id]
        self._ended[request_id] = reason

    def _record(
        self,
        plan: StepPlan,
        moments: tuple[float, float, float],
        *,
        rows: tuple[ScheduledRequest, ...],
        tokens: list[Token],
        stopped_by: dict[str, str],
        kv: KvDelta,
        extra: dict[str, Any] | None = None,
    ) -> Step:
        """The record of a step that is over now. `moments`: when it began, was scheduled, and was computed."""
        (started, scheduled, forwarded), done = moments, time.monotonic()
        finished, self._ended = self._ended, {}
        return Step(
            step=plan.step,
            t_s=done - self.epoch_s,
            schedule_s=scheduled - started,
            forward_s=forwarded - scheduled,
            update_s=done - forwarded,
            scheduled=rows,
            num_scheduled_tokens=sum([row.num_tokens for row in rows]),
            token_budget=self.scheduler.token_budget,
            **self.scheduler.told(plan),
            finished=finished,
            stopped_by=stopped_by,
            tokens=tuple(tokens),
            kv=kv,
            extra=extra or {},
        )

    def _header(self, config: EngineConfig, limits: Limits, **about: Any) -> Header:
        """What all steps have in common. `about`: what only this engine can tell."""
        return Header(
            engine=self.name,
            model=config.model,
            fingerprint=config.fingerprint,
            capabilities=self.capabilities,
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
            token_budget=limits.token_budget,
            started_at=self.started_at,
            **about,
        )
