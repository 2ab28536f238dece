"""The scheduler: one plan per engine step. Asks the policy, checks its answer, finds KV room, preempts when short.

The order of one engine step, the same for every engine of ours: policy.schedule, check, pool.lookup, room (take back
admissions, then policy.victim), pool.allocate and append, forward, sample, pool.commit, pool.fork (n > 1), pool.free of
what finished.
This file must not know any engine, model or clock.
"""

from __future__ import annotations

from typing import Any

from llmlab.errors import NoFreeBlocks, PlanRefused
from llmlab.scheduling.contracts import BlockPool, Policy, PrefixCachingPool, RequestView, SchedulerState
from llmlab.scheduling.forks import Forks
from llmlab.scheduling.plan import Share, StepPlan
from llmlab.scheduling.plan_check import check_plan, check_victim
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Phase

__all__ = ["Scheduler", "Share", "StepPlan"]

# An admission must leave this many tokens of KV room to each running sequence, or the next steps preempt it again.
WATERMARK_TOKENS = 8
MAX_IDLE_STEPS = 100
# Of a queue of 10,000 the record of a step names those who come first, and counts the others.
NUM_WAITING_TOLD = 64


class Scheduler:
    """Continuous batching over any pool and any policy."""

    def __init__(self, pool: BlockPool, policy: Policy, *, token_budget: int, max_num_seqs: int) -> None:
        self.pool, self.policy = pool, policy
        # Asked once: isinstance() with a protocol costs 25 us.
        self._prefixes = pool if isinstance(pool, PrefixCachingPool) else None
        self.token_budget, self.max_num_seqs = token_budget, max_num_seqs
        self.step_number = 0
        self.running: dict[str, Sequence] = {}  # order of admission
        self._waiting: dict[str, Sequence] = {}  # order of arrival
        self._preempted: dict[str, Sequence] = {}  # before the waiting ones, the last preempted first
        self._forks = Forks()  # no policy sees them before they share the blocks of their parent
        # Views of everybody who waits; None when the queue has changed since.
        self._queue: tuple[RequestView, ...] | None = None
        self._idle_steps = 0

    def __contains__(self, request_id: str) -> bool:
        return self._find(request_id) is not None or request_id in self._forks

    @property
    def waiting(self) -> tuple[RequestView, ...]:
        """Who waits, in order: preempted sequences first."""
        if self._queue is None:
            queue = (*reversed(self._preempted.values()), *self._waiting.values())
            self._queue = tuple(seq.view() for seq in queue)
        return self._queue

    @property
    def num_waiting(self) -> int:
        return len(self._preempted) + len(self._waiting)

    @property
    def capacity_tokens(self) -> int:
        """KV room of the whole pool: the longest sequence that can ever run."""
        return self.pool.num_blocks * self.pool.block_size

    def told(self, plan: StepPlan | None) -> dict[str, Any]:
        """What the trace record of a step says of its plan, and of the queue now. None: nothing was to be planned."""
        waiting = [view.request_id for view in self.waiting[:NUM_WAITING_TOLD]]
        if self._forks:
            waiting += self._forks.request_ids
        return {
            "waiting": tuple(waiting[:NUM_WAITING_TOLD]),
            "num_waiting": self.num_waiting + len(self._forks),
            "num_running": len(self.running),
            "preempted": tuple(plan.preempted) if plan else (),
            "prefix_hits": plan.prefix_hits if plan else {},
            "forked": plan.forked if plan else {},
        }

    def add(self, seq: Sequence) -> None:
        """Put a sequence at the end of the queue; a child waits for the prompt of its parent, if that is still to come.

        Raises: PlanRefused when the id is in use or the sequence can never fit into the pool.
        """
        if seq.request_id in self:
            raise PlanRefused(f"request {seq.request_id!r} is already here; give each request its own id")
        if seq.num_tokens > self.capacity_tokens:
            raise PlanRefused(
                f"{seq.request_id} has {seq.num_tokens} tokens, the whole KV cache holds {self.capacity_tokens}"
            )
        seq.arrival_step = self.step_number
        parent = self._find(seq.parent_id)
        if parent and (parent.token_ids, parent.salt) == (seq.token_ids, seq.salt):  # it has no output yet
            self._forks.wait(seq)
        else:
            self._enqueue(seq)

    def _enqueue(self, seq: Sequence) -> None:
        self._waiting[seq.request_id] = seq
        self._queue = None

    def _find(self, request_id: str) -> Sequence | None:
        return self.running.get(request_id) or self._waiting.get(request_id) or self._preempted.get(request_id)

    def abort(self, request_id: str) -> Sequence:
        """Take a sequence out, wherever it is, without caching what it computed in an unfinished step.

        Raises: KeyError when unknown.
        """
        for child in self._forks.take(request_id):  # it computes its prompt itself, or finds it in the cache
            self._enqueue(child)
        if (waited := self._forks.withdraw(request_id)) is not None:
            return waited
        if request_id in self.running:
            return self._leave(request_id)
        seq = self._preempted.pop(request_id, None) or self._waiting.pop(request_id)
        self._queue = None
        return seq

    def schedule(self) -> StepPlan:
        """Decide the next step and take its KV room.

        Raises: PlanRefused, in words, when the policy asked for something impossible.
        """
        state = self._state()
        # Nobody here, nothing to ask: a step may only have ends to report.
        wanted = dict(self.policy.schedule(state)) if state.waiting or state.running else {}
        check_plan(wanted, state)
        plan = StepPlan(self.step_number)
        self._extend_running(plan, wanted)
        if self.num_waiting and not plan.preempted:
            self._admit(plan, wanted)
        self._watch_starvation(plan)
        self.step_number += 1
        return plan

    def commit(self, plan: StepPlan) -> None:
        """The forward pass of this plan is done: its KV exists and may be shared."""
        for share in plan.shares:
            seq = share.seq
            seq.num_computed_tokens = share.num_computed_tokens + share.num_tokens
            if self._prefixes is not None:
                self._prefixes.commit(seq.request_id, seq.token_ids, seq.num_computed_tokens, seq.salt)
        if self._forks:
            self._fork(plan)

    def _fork(self, plan: StepPlan) -> None:
        """Whose prompt is computed up to its last token has children that share its blocks: they run from here on.

        All compute that token themselves: who writes first copies the block (pool.append). For whom no seat is left
        queues up.
        """
        for parent in [share.seq for share in plan.shares if share.seq.num_uncomputed_tokens == 1]:
            for child in self._forks.take(parent.request_id):
                if len(self.running) == self.max_num_seqs:
                    self._enqueue(child)
                    continue
                self.pool.fork(parent.request_id, child.request_id)
                child.num_computed_tokens = parent.num_computed_tokens
                self.running[child.request_id] = child
                plan.forked[child.request_id] = parent.request_id

    def give_back(self, plan: StepPlan) -> None:
        """The forward pass of this plan was broken off: its room goes back, and it has no shares any more.

        Only for a pool that has take_back().
        """
        pool: Any = self.pool
        for share in plan.shares:
            pool.take_back(share.seq.request_id, share.num_computed_tokens)
        plan.shares.clear()

    def finish(self, request_id: str) -> Sequence:
        """A running sequence has ended: its KV room is given back. Raises: KeyError when it does not run."""
        return self._leave(request_id)

    def _leave(self, request_id: str) -> Sequence:
        seq = self.running.pop(request_id)
        self.pool.free(request_id)
        return seq

    def _state(self) -> SchedulerState:
        return SchedulerState(
            self.step_number,
            self.token_budget,
            self.max_num_seqs,
            self.pool.num_free_blocks * self.pool.block_size,
            self.waiting,
            tuple(seq.view() for seq in self.running.values()),
        )

    def _extend_running(self, plan: StepPlan, wanted: dict[str, int]) -> None:
        """Room for the running sequences of the plan; while it is short, the policy names a victim."""
        has_forks = bool(self._forks)
        for request_id, num_tokens in wanted.items():
            if has_forks and (parent := self.running.get(request_id)):
                num_tokens = self._before_fork(parent, num_tokens, parent.num_uncomputed_tokens)
            while request_id in self.running:
                try:
                    copies = self.pool.append(request_id, num_tokens)
                except NoFreeBlocks:
                    self._preempt(plan)
                    continue
                seq = self.running[request_id]
                if copies:
                    plan.copies += copies
                plan.shares.append(Share(seq, num_tokens, seq.num_computed_tokens, seq.view().phase))
                break

    def _preempt(self, plan: StepPlan) -> None:
        state = self._state()
        victim = self.policy.victim(state)
        check_victim(victim, state)
        if plan.copies:
            lost = self.pool.block_table(victim)
            plan.copies = [pair for pair in plan.copies if pair.dst not in lost]
        seq = self._leave(victim)
        seq.num_computed_tokens = 0
        seq.num_preemptions += 1
        self._preempted[victim] = seq
        self._queue = None
        plan.preempted.append(victim)
        plan.shares = [share for share in plan.shares if share.seq is not seq]

    def _admit(self, plan: StepPlan, wanted: dict[str, int]) -> None:
        """Admissions in the order of the plan; the first that finds no room takes the later ones back with it."""
        waiting = {r: n for r, n in wanted.items() if r not in self.running}
        # Prompts that run already will need this much more room.
        promised = sum(seq.num_uncomputed_tokens for seq in self.running.values())
        promised -= plan.num_tokens
        for request_id, num_tokens in waiting.items():
            seq = self._preempted.get(request_id) or self._waiting[request_id]
            cached = self._lookup(seq)
            hit = len(cached) * self.pool.block_size
            rest = seq.num_tokens - hit
            if self.running and not self._has_room(rest, cached, promised):
                return
            num_tokens = self._before_fork(seq, min(num_tokens, rest), rest)
            try:
                self._allocate(request_id, num_tokens, cached)
            except NoFreeBlocks:
                return
            promised += rest - num_tokens
            seq.num_computed_tokens = hit
            self._preempted.pop(request_id, None)
            self._waiting.pop(request_id, None)
            self._queue = None
            self.running[request_id] = seq
            if hit:
                plan.prefix_hits[request_id] = hit
            phase: Phase = "recompute" if seq.num_preemptions else "prefill"
            plan.shares.append(Share(seq, num_tokens, hit, phase))

    def _before_fork(self, parent: Sequence, num_tokens: int, num_uncomputed: int) -> int:
        """What is left of its num_tokens: the last token of a prompt is computed after the children were forked."""
        if num_tokens < num_uncomputed or parent.request_id not in self._forks.parents:
            return num_tokens
        if num_uncomputed > 1:
            return num_tokens - 1
        for child in self._forks.take(parent.request_id):  # all of it was cached: they find it as well
            self._enqueue(child)
        return num_tokens

    def _lookup(self, seq: Sequence) -> list[int]:
        return self._prefixes.lookup(seq.token_ids, seq.salt) if self._prefixes is not None else []

    def _allocate(self, request_id: str, num_tokens: int, cached: list[int]) -> None:
        if self._prefixes is not None:
            self._prefixes.allocate(request_id, num_tokens, cached)
        else:
            self.pool.allocate(request_id, num_tokens)

    def _has_room(self, rest: int, cached: list[int], promised: int) -> bool:
        """Whether the whole prompt fits, and the watermark above it. Cached blocks that nobody holds cost room too."""
        size = self.pool.block_size
        revived = sum(1 for block in cached if self.pool.ref_count(block) == 0)
        needed = (-(-rest // size) + revived) * size + promised
        return needed + WATERMARK_TOKENS * len(self.running) <= self.pool.num_free_blocks * size

    def _watch_starvation(self, plan: StepPlan) -> None:
        self._idle_steps = 0 if plan.shares or not (self.num_waiting or self.running) else self._idle_steps + 1
        if self._idle_steps >= MAX_IDLE_STEPS:
            raise PlanRefused(
                f"step {plan.step}: starved: nothing was scheduled in {MAX_IDLE_STEPS} steps though "
                f"{self.num_waiting} wait and {len(self.running)} run"
            )
