"""Tracer: what vLLM's scheduler decides and what comes of it, step by step, from two hooks around its own methods.

The hooks run where a GPU would wait for them, so they keep references and read only what will be gone; records are
made in take(). They never raise into the engine: an error is counted and the run goes on, with fewer facts.
Source: vllm/v1/core/sched/interface.py SchedulerInterface.schedule, update_from_output.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.vllm_blocks import MAX_FULL_BLOCKS, BlockWatcher
from llmlab.engines.vllm_fields import check_fields
from llmlab.engines.vllm_steps import StepRecorder, TracedStep
from llmlab.errors import EngineError, unknown
from llmlab.scheduling.scheduler import NUM_WAITING_TOLD
from llmlab.trace import BlockDelta, Step

LEVELS = ("off", "delta", "full")


class Tracer:
    """Follows one scheduler. `level`: "off" gives tokens, ends and times; "delta" and "full" give all.

    They differ in how blocks are read (vllm_blocks.py); above 512 blocks "full" becomes "delta".

    An engine that ends a request by itself, at a stop string say, does it in this order: abort it in vLLM, forget(it),
    and settle() the step that tells its end.

    Raises: EngineError when this version of vLLM lacks a field that is read.
    """

    def __init__(self, scheduler: Any, *, level: str = "full") -> None:
        if level not in LEVELS:
            raise EngineError(unknown("trace level", level, LEVELS))
        if level != "off":
            check_fields()
        if level == "full" and scheduler.kv_cache_manager.block_pool.num_gpu_blocks > MAX_FULL_BLOCKS + 1:
            level = "delta"
        self.level = level
        self.epoch_s = time.monotonic()
        self.num_errors = 0
        self.last_error: str | None = None
        self.cost_s = 0.0  # inside the hooks; what take() costs is not in it
        self._scheduler = scheduler
        self._blocks: BlockWatcher | None = None
        self._recorder = StepRecorder(self.epoch_s, int(scheduler.max_num_scheduled_tokens), rows=level != "off")
        self._num_steps = 0
        self._in_flight: deque[TracedStep] = deque()  # scheduled, output not known yet
        self._ended: deque[TracedStep] = deque()  # to be taken
        # Ends that we know and that SchedulerOutput will name once more.
        self._told_ends: set[str] = set()
        self._num_blocks: int | None = None

    # ---- in place

    def attach(self) -> None:
        """Put the hooks around the methods of this scheduler. Requests of before are none of ours."""
        self.detach()
        self.start()
        scheduler = self._scheduler
        schedule, update = scheduler.schedule, scheduler.update_from_output
        scheduler.schedule = lambda *args, **kw: self.around_schedule(schedule, *args, **kw)
        scheduler.update_from_output = lambda *args, **kw: self.around_update(update, *args, **kw)

    def detach(self) -> None:
        for name in ("schedule", "update_from_output"):
            vars(self._scheduler).pop(name, None)

    def start(self) -> None:
        """Look at what is there now: everything from here on is traced."""
        self._told_ends = set(self._scheduler.finished_req_ids)
        if self.level == "off":
            return
        try:
            if self._blocks is None:
                self._blocks = BlockWatcher(self._scheduler, self.level)
                self._num_blocks = self._blocks.num_blocks
            else:
                self._blocks.resync()
        except Exception as error:
            self._note_blocks(error)

    # ---- the hooks

    def around_schedule(self, schedule: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        started_s = time.monotonic()
        output = schedule(*args, **kw)
        scheduled_s = time.monotonic()
        try:
            self._after_schedule(TracedStep(output, started_s, scheduled_s))
        except Exception as error:
            self._note(error)
        self.cost_s += time.monotonic() - scheduled_s
        return output

    def around_update(self, update: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        forwarded_s = time.monotonic()
        outputs = update(*args, **kw)
        ended_s = time.monotonic()
        try:
            output = args[0] if args else kw["scheduler_output"]
            step = self._leave_flight(output, forwarded_s)
            step.outputs, step.forwarded_s, step.ended_s = outputs, forwarded_s, ended_s
            self._ended.append(step)
            self._after_update(step)
        except Exception as error:
            self._note(error)
        self.cost_s += time.monotonic() - ended_s
        return outputs

    def _after_schedule(self, step: TracedStep) -> None:
        if finished := step.output.finished_req_ids:
            # Who ended since the last look ended in the step whose output comes next.
            ends = [r for r in finished if r not in self._told_ends]
            self._told_ends.difference_update(finished)
            if ends:
                self._end(ends, self._in_flight[0] if self._in_flight else step)
        self._in_flight.append(step)
        if self._blocks is not None:
            try:
                step.changes = self._blocks.schedule(step.output)
            except Exception as error:
                self._note_blocks(error)
        if self.level != "off":
            scheduler = self._scheduler
            step.num_running, step.num_waiting = scheduler.get_request_counts()
            if step.num_waiting:
                step.waiting = tuple([r.request_id for r in islice(scheduler.waiting, NUM_WAITING_TOLD)])

    def _after_update(self, step: TracedStep) -> None:
        if self._blocks is not None and step.changes is not None:
            try:
                self._blocks.look(step.changes)
            except Exception as error:
                self._note_blocks(error)
        if ended := self._scheduler.finished_req_ids:
            self._end([r for r in ended if r not in self._told_ends], step)
            self._told_ends.update(ended)
        if self._blocks is not None and step.changes is not None:
            try:
                step.changes = self._blocks.finish(step.changes)
            except Exception as error:
                self._note_blocks(error)

    def _leave_flight(self, output: Any, now_s: float) -> TracedStep:
        """The step of this output. Older ones never got theirs, as their forward pass failed: their ends are ours."""
        while self._in_flight:
            step = self._in_flight.popleft()
            if step.output is output:
                return step
            if self._in_flight:
                self._in_flight[0].ended += step.ended
        return TracedStep(output, now_s, now_s)  # scheduled before we were here

    def _end(self, request_ids: list[str], step: TracedStep) -> None:
        """These requests ended in this step, the oldest of those in flight."""
        step.ended += request_ids
        for later in self._in_flight:
            if later is not step:
                later.dropped.update(request_ids)
        if self._blocks is not None:
            try:
                for request_id in request_ids:
                    self._blocks.end(request_id, step.changes)
            except Exception as error:
                self._note_blocks(error)

    # ---- what was traced

    def take(self) -> list[Step]:
        """The steps that have ended since the last call, in order. Tokens have no text yet.

        Each update_from_output() gives one, even when nothing was in it.
        """
        return [step.record() if isinstance(step, DecodeStep) else step for step in self.take_columns()]

    def take_columns(self) -> list[Step | DecodeStep]:
        """The same, with columns in place of records where that is all."""
        steps = []
        while self._ended:
            steps.append(self._record(self._ended.popleft()))
            self._num_steps += 1
        return steps

    def forget(self, request_id: str) -> None:
        """The engine ended this request, unless vLLM had, and tells so in the last step taken: later ones drop it."""
        is_new = request_id in self._scheduler.finished_req_ids and request_id not in self._told_ends
        if not is_new and request_id not in self._recorder:
            return
        self._recorder.forget(request_id)
        self._told_ends.add(request_id)
        for later in (*self._ended, *self._in_flight):
            later.dropped.add(request_id)
        if self._blocks is not None:
            try:
                self._blocks.end(request_id, None)
            except Exception as error:
                self._note_blocks(error)

    def snapshot(self) -> BlockDelta | None:
        """The blocks after the last step that ended, as changes of an empty cache; None when they are not traced."""
        return self._blocks.snapshot() if self._blocks is not None else None

    def settle(self, step: Step) -> Step:
        """The last step that was taken, with the blocks of forgotten requests given back in it.

        Without this call the next step tells it. To be called when vLLM has aborted them.
        """
        if self._blocks is None or not isinstance(step.kv, BlockDelta):
            return step
        try:
            return replace(step, kv=self._blocks.settle(step.kv))
        except Exception as error:
            self._note_blocks(error)
            return step

    def _record(self, step: TracedStep) -> Step | DecodeStep:
        try:
            kv = None
            if step.changes is not None and self._num_blocks is not None:
                kv = step.changes.record(self._num_blocks)
            if (columns := self._recorder.columns(self._num_steps, step, kv)) is not None:
                return columns
            return self._recorder.record(self._num_steps, step, kv, (*self._ended, *self._in_flight))
        except Exception as error:
            self._note(error)
        try:
            return self._recorder.record_outputs(self._num_steps, step)
        except Exception as error:
            self._note(error)
        return Step(step=self._num_steps, t_s=step.ended_s - self.epoch_s)

    # ---- errors

    def _note(self, error: Exception) -> None:
        self.num_errors += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.last_error = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"

    def _note_blocks(self, error: Exception) -> None:
        """What is known of the blocks is not sure any more: from here on the steps tell nothing about them."""
        self._note(error)
        self._blocks = None
        for step in (*self._in_flight, *self._ended):
            step.changes = None
