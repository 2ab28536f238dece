"""SimulatedWorker: the real scheduler and pool, with a cost model in place of the forward pass and a clock of its own.

What does one step do? begin() plans it and says how long it takes; end() is what exists after that time.
This file must not know where requests come from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Many
from dataclasses import dataclass

from llmlab.engines.cost_model import CostModel, Work, work_of
from llmlab.engines.simulated_decodes import Decodes
from llmlab.engines.simulated_room import Room, WatchedBlocks, WatchedCells, Watcher
from llmlab.errors import NoFreeBlocks, PartFailed, PlanRefused
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.scheduler import WATERMARK_TOKENS, Scheduler, StepPlan
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import FinishReason, KvDelta, Request, ScheduledRequest, Step, Token


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and the answer that it will get: a simulator decides when tokens come, not which."""

    request: Request
    # At least one. The same Token may stand there many times.
    tokens: Many[Token]
    reason: FinishReason = "length"
    stopped_by: str | None = None


class SimulatedWorker:
    """One engine. Times are seconds of a clock that only its steps move."""

    def __init__(self, room: Room, cost: CostModel, *, seed: int = 0, jitter: float = 0.0) -> None:
        """`jitter`: standard deviation of a step's time, as a share of it."""
        self.room, self.cost = room, cost
        self.pool, self._policy = room.make_pool(), room.make_policy()
        self.scheduler = Scheduler(
            self.pool, self._policy, token_budget=room.token_budget, max_num_seqs=room.max_num_seqs
        )
        pool = self.pool
        self._watcher: Watcher = WatchedCells(pool) if isinstance(pool, CellPool) else WatchedBlocks(pool)
        self.asked: dict[str, Asked] = {}  # what has not ended
        self._ended: dict[str, FinishReason] = {}  # ends that no step has reported yet
        self._random, self._jitter = random.Random(seed), jitter
        self._aside: dict[str, Sequence] = {}  # run no more, and hold KV
        # All room is held by those set aside: nothing can be planned before one of them is released.
        self._is_stuck = False
        self._was_idle = True
        self._plan: StepPlan | None = None
        self._rows: tuple[ScheduledRequest, ...] = ()
        self._decodes: Decodes | None = None  # nothing but decodes: planned without asking again
        self.is_running = False  # between begin() and end()
        self._took_s = 0.0

    # ---- requests

    def add(self, asked: Asked) -> None:
        """Not between begin() and end(), like all here. Raises: PlanRefused when it can never fit."""
        assert not self.is_running
        request = asked.request
        most = len(request.prompt_token_ids) + len(asked.tokens) - 1
        if most > self.scheduler.capacity_tokens:
            raise PlanRefused(
                f"{request.request_id} grows to {most} tokens, the whole KV cache holds "
                f"{self.scheduler.capacity_tokens}: give it more kv_tokens"
            )
        self._settle()
        self.scheduler.add(Sequence.of(request))
        self.asked[request.request_id] = asked

    def adopt(self, asked: Asked, seq: Sequence) -> bool:
        """Take a sequence over whose KV another worker has computed; False while there is no room or seat for it."""
        scheduler, pool = self.scheduler, self.pool
        num_tokens = seq.num_computed_tokens
        size = pool.block_size
        needed = (-(-num_tokens // size)) * size + WATERMARK_TOKENS * len(scheduler.running)
        if len(scheduler.running) >= self.room.max_num_seqs or needed > pool.num_free_blocks * size:
            return False
        self._settle()
        if isinstance(pool, PagedPool):
            pool.lookup(seq.token_ids, seq.salt)  # as the scheduler does first: EarlyPool hashes what was looked up
        try:
            pool.allocate(seq.request_id, num_tokens)
        except NoFreeBlocks:
            return False
        seq.arrival_step = scheduler.step_number
        scheduler.running[seq.request_id] = seq
        self.asked[seq.request_id] = asked
        return True

    def set_aside(self, request_id: str) -> tuple[Asked, Sequence]:
        """It will go on elsewhere: it runs here no more, and its KV stays until release()."""
        self._settle()
        self._aside[request_id] = seq = self.scheduler.running.pop(request_id)
        return self.asked.pop(request_id), seq

    def release(self, request_id: str) -> tuple[int, ...]:
        """Another worker has its KV now; the blocks it had here. At any time."""
        del self._aside[request_id]
        blocks = self.pool.block_table(request_id)
        self.pool.free(request_id)
        self._is_stuck = False
        return blocks

    def abort(self, request_id: str) -> None:
        """It ends with the next step."""
        if request_id in self.asked:
            self._settle()
            self.scheduler.abort(request_id)
            self._end(request_id, "abort")

    @property
    def has_work(self) -> bool:
        return bool(self.asked or self._ended) and not self._is_stuck

    @property
    def num_tokens_left(self) -> int:
        """Tokens yet to be computed for those who are here: how busy it is."""
        total = 0
        for asked in self.asked.values():
            total += len(asked.request.prompt_token_ids) + len(asked.tokens)
        return total

    # ---- one step

    def begin(self) -> float:
        """Plan a step and take its room; how long it will take, in seconds.

        Raises: PlanRefused, in words, when the policy asked for something impossible; PartFailed when it failed.
        """
        decodes = self._decodes
        if decodes is not None and decodes.can_go_on:
            work = decodes.begin()
            self._plan, self._rows = None, decodes.rows()
        else:
            work = self._ask()
        self._took_s = self._seconds(work)
        self.is_running = True
        return self._took_s

    def _ask(self) -> Work:
        self._settle()
        try:
            self._plan = plan = self.scheduler.schedule()
        except PartFailed as error:
            raise PartFailed(f"step {self.scheduler.step_number}: {error}") from error
        self._rows = plan.records()
        num_cells = None
        if isinstance(self.pool, CellPool) and isinstance(self._watcher, WatchedCells):
            placed = self.pool.place((share.seq.request_id, share.num_tokens) for share in plan.shares)
            num_cells = self._watcher.num_attended(placed)
        return work_of(self._rows, num_cells, is_cold=self._was_idle)

    def _seconds(self, work: Work) -> float:
        seconds = self.cost.seconds(work) if work.num_tokens else 0.0
        if self._jitter:
            seconds *= max(0.1, 1 + self._random.gauss(0.0, self._jitter))
        return seconds

    def break_off(self) -> None:
        """Before end(): nothing is computed in this step, and its room is given back."""
        self._settle()
        for seq in self.scheduler.running.values():
            self.pool.take_back(seq.request_id, seq.num_computed_tokens)
        preempted = self._plan.preempted if self._plan else []
        self._plan, self._rows = StepPlan(self.scheduler.step_number - 1, preempted=preempted), ()

    def end(self, now_s: float) -> Step:
        """The step is over: its tokens exist, its KV may be shared."""
        stopped_by: dict[str, str] = {}
        plan, rows, decodes = self._plan, self._rows, self._decodes
        if plan is None:
            assert decodes is not None
            number, tokens, over = decodes.number, decodes.tokens(), decodes.end()
        else:
            number, tokens = plan.step, self._sampled(plan)
            self.scheduler.commit(plan)
            over = [token.request_id for token in tokens if self._is_over(token.request_id)]
        if over:
            self._settle()
            for request_id in over:
                asked = self.asked[request_id]
                if asked.stopped_by is not None:
                    stopped_by[request_id] = asked.stopped_by
                self.scheduler.finish(request_id)
                self._end(request_id, asked.reason)
        finished, self._ended = self._ended, {}
        self._was_idle = not self.asked
        self.is_running = False
        self._is_stuck = bool(self._aside) and not (rows or finished)
        step = Step(
            step=number,
            t_s=now_s,
            schedule_s=0.0,  # the cost model tells the whole of a step
            forward_s=self._took_s,
            update_s=0.0,
            scheduled=rows,
            num_scheduled_tokens=len(rows) if plan is None else plan.num_tokens,
            token_budget=self.room.token_budget,
            **self.scheduler.told(plan),
            finished=finished,
            stopped_by=stopped_by,
            tokens=tuple(tokens),
            kv=self.delta(),
        )
        if plan is not None and not over and len(tokens) == len(plan.shares):
            self._decodes = Decodes.after(plan, self.scheduler, self._policy, self.asked)
        return step

    def delta(self) -> KvDelta:
        """What happened to the KV cache since the last time this was asked."""
        alive = {**self.scheduler.running, **self._aside} if self._aside else self.scheduler.running
        return self._watcher.delta(alive, self._plan)

    def _sampled(self, plan: StepPlan) -> list[Token]:
        tokens = []
        for share in plan.shares:
            if share.samples:
                seq = share.seq
                token = self.asked[seq.request_id].tokens[seq.num_output_tokens]
                seq.token_ids.append(token.token_id)
                tokens.append(token)
        return tokens

    def _is_over(self, request_id: str) -> bool:
        return self.scheduler.running[request_id].num_output_tokens >= len(self.asked[request_id].tokens)

    def _end(self, request_id: str, reason: FinishReason) -> None:
        del self.asked[request_id]
        self._ended[request_id] = reason

    def _settle(self) -> None:
        """Bring scheduler and pool to where the decodes have come."""
        if self._decodes is not None:
            self._decodes.settle()
            self._decodes = None
