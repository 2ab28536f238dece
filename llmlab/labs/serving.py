"""Serving requests without a real model: our scheduler, anybody's policy and pool, and answers that read all their KV.

A wrong or unwritten block gives a wrong answer. The checks of labs on scheduling and caching run on it. This file must
not know any lab or engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmlab.errors import NoFreeBlocks, PlanRefused
from llmlab.scheduling.contracts import BlockCopy, BlockPool, Policy
from llmlab.scheduling.plan import StepPlan
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence as Seq
from llmlab.trace import FinishReason, Header, Request, Step, Token, Trace

# What the KV of a slot says: which token, at which position.
Slot = tuple[int, int]
UNWRITTEN: Slot = (-1, -1)
NUM_VOCAB = 997


@dataclass(frozen=True, slots=True)
class Job:
    """A request: what it asks, how many tokens it wants, and before which step it comes."""

    request_id: str
    prompt: tuple[int, ...]
    num_output_tokens: int
    arrival_step: int = 0
    user: str = ""
    salt: str = ""


class Serving:
    """One run. What it has done so far stays readable when something is raised on the way."""

    def __init__(
        self, jobs: Iterable[Job], pool: BlockPool, policy: Policy, *, token_budget: int, max_num_seqs: int
    ) -> None:
        self.jobs = {job.request_id: job for job in jobs}
        self.scheduler = Scheduler(pool, policy, token_budget=token_budget, max_num_seqs=max_num_seqs)
        self.answers: dict[str, list[int]] = {}
        self.requests: list[Request] = []
        self.steps: list[Step] = []
        self._memory = None if isinstance(pool, CellCount) else _Memory(pool)
        self._to_come = sorted(self.jobs.values(), key=lambda job: job.arrival_step)
        self._num_ended = 0

    @property
    def trace(self) -> Trace:
        """Without KV: a pool that somebody else wrote does not tell what changed."""
        scheduler = self.scheduler
        header = Header(
            engine="simulated",
            source="simulated",
            max_num_seqs=scheduler.max_num_seqs,
            token_budget=scheduler.token_budget,
        )
        return Trace(header, tuple(self.requests), tuple(self.steps))

    def run(self, *, max_steps: int = 2000, interrupt_step: int | None = None) -> None:
        """Until every request has ended.

        `interrupt_step`: in this step the forward pass is broken off: its KV is never written, and all that run are
        aborted. Raises: PlanRefused, also when requests are left after max_steps; what policy and pool raise.
        """
        while self._num_ended < len(self.jobs):
            if len(self.steps) >= max_steps:
                raise PlanRefused(
                    f"not finished after {max_steps} steps: {self.scheduler.num_waiting} requests wait and "
                    f"{len(self.scheduler.running)} run: starved"
                )
            self._step(is_interrupted=len(self.steps) == interrupt_step)

    def _step(self, *, is_interrupted: bool) -> None:
        self._let_in()
        plan = self.scheduler.schedule()
        rows = plan.records()
        tokens: list[Token] = []
        finished: dict[str, FinishReason] = {}
        if is_interrupted:
            for request_id in list(self.scheduler.running):
                self.scheduler.abort(request_id)
                finished[request_id] = "abort"
        else:
            self._forward(plan)
            self.scheduler.commit(plan)
            tokens, finished = self._sample(plan)
        self._num_ended += len(finished)
        self.steps.append(
            Step(
                step=plan.step,
                t_s=plan.step + 1.0,
                scheduled=rows,
                num_scheduled_tokens=sum(row.num_tokens for row in rows),
                **self.scheduler.told(plan),
                finished=finished,
                tokens=tuple(tokens),
            )
        )

    def _let_in(self) -> None:
        step = self.scheduler.step_number
        while self._to_come and self._to_come[0].arrival_step <= step:
            job = self._to_come.pop(0)
            name, prompt = job.request_id, job.prompt
            self.answers[name] = []
            self.scheduler.add(Seq(name, list(prompt), len(prompt), user=job.user, salt=job.salt))
            self.requests.append(
                Request(request_id=name, arrival_s=float(step), prompt_token_ids=prompt, user=job.user, salt=job.salt)
            )

    def _forward(self, plan: StepPlan) -> None:
        if self._memory is None:
            return
        self._memory.copy(plan.copies)
        for share in plan.shares:
            seq, first = share.seq, share.num_computed_tokens
            self._memory.write(seq.request_id, seq.token_ids, range(first, first + share.num_tokens))

    def _sample(self, plan: StepPlan) -> tuple[list[Token], dict[str, FinishReason]]:
        tokens: list[Token] = []
        finished: dict[str, FinishReason] = {}
        for share in plan.shares:
            name, seq = share.seq.request_id, share.seq
            if not share.samples:
                continue
            token_id = self._memory.next_token(name, seq.num_computed_tokens) if self._memory else 0
            seq.token_ids.append(token_id)
            tokens.append(Token(request_id=name, token_id=token_id))
            self.answers[name].append(token_id)
            if seq.num_output_tokens == self.jobs[name].num_output_tokens:
                self.scheduler.finish(name)
                finished[name] = "length"
        return tokens, finished


class _Memory:
    """The KV of each slot, by the block tables of the pool."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._slots: list[Slot] = [UNWRITTEN] * (pool.num_blocks * pool.block_size)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        size = self._pool.block_size
        for pair in copies:
            self._slots[pair.dst * size : (pair.dst + 1) * size] = self._slots[pair.src * size : (pair.src + 1) * size]

    def write(self, seq_id: str, token_ids: Sequence[int], positions: range) -> None:
        size, table = self._pool.block_size, self._pool.block_table(seq_id)
        for position in positions:
            self._slots[table[position // size] * size + position % size] = token_ids[position], position

    def next_token(self, seq_id: str, num_tokens: int) -> int:
        """It depends on every token and its position."""
        size, table = self._pool.block_size, self._pool.block_table(seq_id)
        held = [slot for block in table for slot in self._slots[block * size : (block + 1) * size]]
        return hash(tuple(held[:num_tokens])) % NUM_VOCAB


class CellCount:
    """KV room of single cells, only counted: for runs in which nobody looks at the KV. Satisfies BlockPool.

    >>> pool = CellCount(10); pool.allocate("a", 7); pool.append("a"); pool.num_free_blocks
    []
    2
    """

    block_size = 1

    def __init__(self, num_cells: int) -> None:
        self.num_blocks = self.num_free_blocks = num_cells
        self._lengths: dict[str, int] = {}

    def allocate(self, seq_id: str, num_tokens: int) -> None:
        self._lengths[seq_id] = 0
        try:
            self.append(seq_id, num_tokens)
        except NoFreeBlocks:
            del self._lengths[seq_id]
            raise

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Raises: NoFreeBlocks, before anything changed."""
        if num_tokens > self.num_free_blocks:
            raise NoFreeBlocks(f"{num_tokens} cells are needed, {self.num_free_blocks} are free")
        self._lengths[seq_id] += num_tokens
        self.num_free_blocks -= num_tokens
        return []

    def free(self, seq_id: str) -> None:
        self.num_free_blocks += self._lengths.pop(seq_id)

    def num_tokens(self, seq_id: str) -> int:
        return self._lengths[seq_id]

    def fork(self, parent_id: str, child_id: str) -> None:
        """Raises: NotImplementedError: counted cells belong to one sequence each."""
        raise NotImplementedError("counted cells cannot be shared")

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        """Raises: NotImplementedError: they have no numbers."""
        raise NotImplementedError("counted cells have no numbers")

    def ref_count(self, block_id: int) -> int:
        """Raises: NotImplementedError: they have no numbers."""
        raise NotImplementedError("counted cells have no numbers")
