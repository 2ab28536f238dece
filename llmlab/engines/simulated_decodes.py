"""Decodes: steps in which each running sequence decodes one token and nobody comes or goes, planned without asking.

Most steps of a run are of this kind; our policies decide them all alike, so the simulator asks once for all of them.
Pool and scheduler are told in time for what they decide next: blocks when one is full, the rest in settle().
What is recorded is the same, which a test compares. This file must not know time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmlab.engines.cost_model import Work
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.contiguous_pool import ContiguousPool
from llmlab.scheduling.contracts import Policy
from llmlab.scheduling.policies import ChunkedPrefill, Fcfs, StaticBatching
from llmlab.scheduling.scheduler import Scheduler, StepPlan
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import ScheduledRequest, Token

if TYPE_CHECKING:
    from llmlab.engines.simulated_worker import Asked

# All of these give each running sequence one token when all of them decode and nobody can be admitted.
ALIKE = (ChunkedPrefill, Fcfs, StaticBatching)


class Decodes:
    """The running sequences, from the step after `plan` on."""

    @classmethod
    def after(cls, plan: StepPlan, scheduler: Scheduler, policy: Policy, asked: Mapping[str, Asked]) -> Decodes | None:
        """None when the next step may be another one. In `plan` everybody got a token."""
        running = scheduler.running
        is_full = len(running) >= scheduler.max_num_seqs
        if type(policy) not in ALIKE or not isinstance(scheduler.pool, PagedPool | ContiguousPool):
            return None
        if not running or len(plan.shares) != len(running) or len(running) > scheduler.token_budget:
            return None
        if scheduler.num_waiting and not is_full:
            return None
        # The scheduler goes through its running sequences, decodes first, in order of admission.
        return cls(list(running.values()), scheduler, scheduler.pool, asked)

    def __init__(
        self,
        seqs: list[Sequence],
        scheduler: Scheduler,
        pool: PagedPool | ContiguousPool,
        asked: Mapping[str, Asked],
    ) -> None:
        self._seqs, self._scheduler, self._pool = seqs, scheduler, pool
        self._answers = [asked[seq.request_id].tokens for seq in seqs]
        self._rows = [
            (seq.request_id, seq.num_computed_tokens, seq.num_prompt_tokens, seq.num_output_tokens) for seq in seqs
        ]
        self._num_done = 0  # steps
        self._num_computed = sum(seq.num_computed_tokens for seq in seqs)
        self._left = min(len(a) - seq.num_output_tokens for a, seq in zip(self._answers, seqs, strict=True))
        size = pool.block_size
        # offset in the last block -> sequences that have it
        self._by_offset: list[list[int]] = [[] for _ in range(size)]
        for i, seq in enumerate(seqs):
            self._by_offset[seq.num_computed_tokens % size].append(i)

    @property
    def number(self) -> int:
        """Of the step that ends now."""
        return self._scheduler.step_number - 1

    @property
    def can_go_on(self) -> bool:
        """Nobody has ended, and there is a block for everybody who needs one."""
        if self._num_done >= self._left:
            return False
        return isinstance(self._pool, ContiguousPool) or len(self._at(0)) <= self._pool.num_free_blocks

    def _at(self, offset: int) -> list[int]:
        """Sequences that have so many tokens in their last block before this step."""
        size = self._pool.block_size
        return self._by_offset[(offset - self._num_done) % size]

    def begin(self) -> Work:
        """Room for the next token of each."""
        self._scheduler.step_number += 1
        for i in self._at(0):
            self._grow(i, self._num_done + 1)
        n = len(self._seqs)
        num_context = self._num_computed + n * (self._num_done + 1)
        return Work(0, n, num_context, num_context)

    def rows(self) -> tuple[ScheduledRequest, ...]:
        k = self._num_done
        return tuple(
            [
                ScheduledRequest(
                    request_id=request_id,
                    phase="decode",
                    num_tokens=1,
                    num_computed_tokens=num_computed + k,
                    num_prompt_tokens=num_prompt,
                    num_output_tokens=num_output + k,
                )
                for request_id, num_computed, num_prompt, num_output in self._rows
            ]
        )

    def tokens(self) -> list[Token]:
        k = self._num_done
        return [answer[row[3] + k] for answer, row in zip(self._answers, self._rows, strict=True)]

    def end(self) -> list[str]:
        """The step is computed; who has ended with it."""
        full = self._at(self._pool.block_size - 1)
        self._num_done += 1
        for i in full:
            self._commit(i)
        if self._num_done < self._left:
            return []
        k = self._num_done
        return [row[0] for answer, row in zip(self._answers, self._rows, strict=True) if len(answer) == row[3] + k]

    def settle(self) -> None:
        """Scheduler and pool learn of all steps so far."""
        if self._num_done:
            for i, seq in enumerate(self._seqs):
                if seq.request_id in self._scheduler.running:
                    self._commit(i)

    def _grow(self, i: int, num_steps: int) -> None:
        """The pool knows of the room for so many steps."""
        request_id, num_computed, _, _ = self._rows[i]
        missing = num_computed + num_steps - self._pool.num_tokens(request_id)
        if missing:
            self._pool.append(request_id, missing)

    def _commit(self, i: int) -> None:
        seq = self._seqs[i]
        _, num_computed, _, num_output = self._rows[i]
        first = seq.num_output_tokens
        seq.token_ids.extend([t.token_id for t in self._answers[i][first : num_output + self._num_done]])
        seq.num_computed_tokens = num_computed + self._num_done
        self._grow(i, self._num_done)
        if isinstance(self._pool, PagedPool):
            self._pool.commit(seq.request_id, seq.token_ids, seq.num_computed_tokens, seq.salt)
