"""The scheduler: one plan per engine step. Asks the policy, checks its answer, finds KV room, preempts when short.

The order of one engine step, the same for every engine of ours: policy.schedule, check, pool.lookup, room (take back
admissions, then policy.victim), pool.allocate and append, forward, sample, pool.commit, pool.free of what finished.
This file must not know any engine, model or clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmlab.errors import NoFreeBlocks, PlanRefused
from llmlab.scheduling.contracts import BlockCopy, BlockPool, Policy, PrefixCachingPool, RequestView, SchedulerState
from llmlab.scheduling.plan_check import check_plan, check_victim
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Phase, ScheduledRequest

# An admission must leave this many tokens of KV room to each running sequence, or the next steps preempt it again.
WATERMARK_TOKENS = 8
MAX_IDLE_STEPS = 100
# Of a queue of 10,000 the record of a step names those who come first, and counts the others.
NUM_WAITING_TOLD = 64


@dataclass(frozen=True, slots=True)
class Share:
    """What one sequence computes in a step: the next num_tokens after the first num_computed_tokens."""

    seq: Sequence
    num_tokens: int
    num_computed_tokens: int
    phase: Phase

    @property
    def samples(self) -> bool:
        """True when the last token of the sequence is computed: the step yields a new one."""
        return self.num_computed_tokens + self.num_tokens == self.seq.num_tokens


@dataclass(slots=True)
class StepPlan:
    """One scheduling decision. The KV room for it is already taken."""

    step: int
    shares: list[Share] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    prefix_hits: dict[str, int] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        return sum(share.num_tokens for share in self.shares)

    def records(self) -> tuple[ScheduledRequest, ...]:
        """The shares as trace records; to be made before sampling, since they count the tokens before the step."""
        return tuple(
            ScheduledRequest(
                request_id=share.seq.request_id,
                phase=share.phase,
                num_tokens=share.num_tokens,
                num_computed_tokens=share.num_computed_tokens,
                num_prompt_tokens=share.seq.num_prompt_tokens,
                num_output_tokens=share.seq.num_output_tokens,
            )
            for share in self.shares
        )


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
        # Views of everybody who waits; None when the queue has changed since.
        self._queue: tuple[RequestView, ...] | None = None
        self._idle_steps = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self.running or request_id in self._waiting or request_id in self._preempted

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
        return {
            "waiting": tuple([view.request_id for view in self.waiting[:NUM_WAITING_TOLD]]),
            "num_waiting": self.num_waiting,
            "num_running": len(self.running),
            "preempted": tuple(plan.preempted) if plan else (),
            "prefix_hits": plan.prefix_hits if plan else {},
        }

    def add(self, seq: Sequence) -> None:
        """Put a sequence at the end of the queue.

        Raises: PlanRefused when the id is in use or the sequence can never fit into the pool.
        """
        if seq.request_id in self:
            raise PlanRefused(f"request {seq.request_id!r} is already here; give each request its own id")
        if seq.num_tokens > self.capacity_tokens:
            raise PlanRefused(
                f"{seq.request_id} has {seq.num_tokens} tokens, the whole KV cache holds {self.capacity_tokens}"
            )
        seq.arrival_step = self.step_number
        self._waiting[seq.request_id] = seq
        self._queue = None

    def abort(self, request_id: str) -> Sequence:
        """Take a sequence out, wherever it is, without caching what it computed in an unfinished step.

        Raises: KeyError when unknown.
        """
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
        for request_id, num_tokens in wanted.items():
            while request_id in self.running:
                try:
                    copies = self.pool.append(request_id, num_tokens)
                except NoFreeBlocks:
                    self._preempt(plan)
                    continue
                seq = self.running[request_id]
                plan.copies += copies
                plan.shares.append(Share(seq, num_tokens, seq.num_computed_tokens, seq.view().phase))
                break

    def _preempt(self, plan: StepPlan) -> None:
        state = self._state()
        victim = self.policy.victim(state)
        check_victim(victim, state)
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
            num_tokens = min(num_tokens, rest)
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
