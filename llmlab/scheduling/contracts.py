"""The contracts of scheduling: what a policy sees and answers, what a block pool does. Students implement them.

This file must not know any engine, model or clock. Methods take positional arguments, since students type them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llmlab.trace import Phase


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """The engine copies the KV of all layers from one block to another before the forward pass."""

    src: int
    dst: int


@runtime_checkable
class BlockPool(Protocol):
    """Fixed-size blocks and the block tables of sequences. seq_id is a str, block_id an int in range(num_blocks)."""

    num_blocks: int
    block_size: int

    @property
    def num_free_blocks(self) -> int: ...
    def allocate(self, seq_id: str, num_tokens: int) -> None:
        """A new block table with room for num_tokens (>= 1). Raises: NoFreeBlocks, before anything changed."""

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Room for more; copies a shared, partly filled last block first. Raises: NoFreeBlocks."""

    def fork(self, parent_id: str, child_id: str) -> None:
        """The child shares every block; takes none."""

    def free(self, seq_id: str) -> None:
        """Raises: KeyError when unknown."""

    def block_table(self, seq_id: str) -> tuple[int, ...]: ...
    def num_tokens(self, seq_id: str) -> int: ...
    def ref_count(self, block_id: int) -> int: ...


@runtime_checkable
class PrefixCachingPool(BlockPool, Protocol):
    """A block pool whose full blocks can be found again by their tokens."""

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        """The longest cached prefix in full blocks, with at least one token left over. Changes nothing."""

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """num_tokens counts what is NOT cached."""

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """After the forward pass: only now may these tokens be found by lookup."""


@dataclass(frozen=True, slots=True)
class RequestView:
    """What a policy may know of a request. Read-only."""

    request_id: str
    user: str
    arrival_step: int
    priority: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_computed_tokens: int
    num_preemptions: int

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_output_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_output_tokens - self.num_computed_tokens

    @property
    def phase(self) -> Phase:
        if self.num_output_tokens and self.num_prompt_tokens + self.num_output_tokens == self.num_computed_tokens + 1:
            return "decode"
        return "recompute" if self.num_preemptions else "prefill"


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """What a policy decides on."""

    step: int
    token_budget: int
    max_num_seqs: int
    # KV room nobody holds: free blocks x block_size, or free cells.
    num_free_tokens: int
    # Order of arrival; a preempted request is put back first.
    waiting: tuple[RequestView, ...]
    # Order of admission.
    running: tuple[RequestView, ...]


class Policy(Protocol):
    """Who computes how many tokens in the next step. A pure function of the state."""

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """request_id -> number of tokens of this step; naming a waiting request admits it."""

    def victim(self, state: SchedulerState) -> str:
        """Called while the plan does not fit the KV room and no admission is left to take back."""
