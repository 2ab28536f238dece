"""ContiguousPool: KV memory as it was served before paging. A sequence gets one unbroken run of blocks, for its longest
possible length, when it is admitted; most of it stays empty.

This file must not know a model, an engine or a clock.

Source: Kwon et al., PagedAttention, SOSP 2023, section 3.1; FasterTransformer's way, "Orca (Max)" in figure 2.
"""

from __future__ import annotations

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.block_pool import PoolChanges
from llmlab.scheduling.contracts import BlockCopy


class ContiguousPool:
    """Reserves `num_reserved` tokens for each sequence, first fit. Satisfies BlockPool.

    >>> pool = ContiguousPool(num_blocks=8, block_size=4, num_reserved=12)
    >>> pool.allocate("a", 1); pool.allocate("b", 1); pool.block_table("b"), pool.num_free_blocks
    ((3, 4, 5), 2)
    """

    prefix_caching = False

    def __init__(self, num_blocks: int, block_size: int, num_reserved: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self._blocks_each = -(-num_reserved // block_size)
        self._free_runs: list[tuple[int, int]] = [(0, num_blocks)] if num_blocks else []  # (first, length), in order
        self._tables: dict[str, tuple[int, ...]] = {}
        self._num_tokens: dict[str, int] = {}
        self._changes = PoolChanges()

    @property
    def num_free_blocks(self) -> int:
        """Blocks that nobody has reserved; perhaps in runs too short for anybody."""
        return sum(length for _, length in self._free_runs)

    @property
    def longest_free_run(self) -> int:
        """In blocks: what the next sequence could get."""
        return max((length for _, length in self._free_runs), default=0)

    def allocate(self, seq_id: str, num_tokens: int) -> None:
        """Raises: NoFreeBlocks, before anything changed. ValueError when the sequence has a block table."""
        if seq_id in self._tables:
            raise ValueError(f"{seq_id} has a block table already; free() it first")
        num_blocks = max(self._blocks_each, -(-num_tokens // self.block_size))
        for i, (first, length) in enumerate(self._free_runs):
            if length >= num_blocks:
                rest = [(first + num_blocks, length - num_blocks)] if length > num_blocks else []
                self._free_runs[i : i + 1] = rest
                self._hold(seq_id, range(first, first + num_blocks), num_tokens)
                return
        raise NoFreeBlocks(
            f"{num_blocks} blocks in one run are needed; {self.num_free_blocks} of {self.num_blocks} are free, the "
            f"longest run has {self.longest_free_run}"
        )

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Nothing is taken: the room is reserved. Raises: NoFreeBlocks beyond the reservation."""
        wanted, room = self._num_tokens[seq_id] + num_tokens, len(self._tables[seq_id]) * self.block_size
        if wanted > room:
            raise NoFreeBlocks(f"{seq_id} needs room for {wanted} tokens, {room} were reserved for it")
        self._num_tokens[seq_id] = wanted
        return []

    def fork(self, parent_id: str, child_id: str) -> None:
        """Contiguous memory cannot be shared."""
        raise NotImplementedError("contiguous KV memory cannot be shared: use blocks")

    def free(self, seq_id: str) -> None:
        """Raises: KeyError when unknown."""
        table = self._tables.pop(seq_id)
        del self._num_tokens[seq_id]
        self._note(seq_id, table, 1)
        self._free_runs = _merged([*self._free_runs, (table[0], len(table))])

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        return self._tables[seq_id]

    def num_tokens(self, seq_id: str) -> int:
        return self._num_tokens[seq_id]

    def ref_count(self, block_id: int) -> int:
        return int(not any(first <= block_id < first + length for first, length in self._free_runs))

    def take_back(self, seq_id: str, num_tokens: int) -> None:
        """The forward pass was broken off. The reservation stays."""
        self._num_tokens[seq_id] = num_tokens

    # ---- for who watches it

    def take_changes(self) -> PoolChanges:
        """What has changed since the last call."""
        changes, self._changes = self._changes, PoolChanges()
        return changes

    def hash_of(self, block_id: int) -> bytes | None:
        return None

    def next_free(self, num_blocks: int) -> tuple[int, ...]:
        return tuple(block for first, length in self._free_runs for block in range(first, first + length))[:num_blocks]

    def _hold(self, seq_id: str, blocks: range, num_tokens: int) -> None:
        self._tables[seq_id], self._num_tokens[seq_id] = tuple(blocks), num_tokens
        self._note(seq_id, self._tables[seq_id], 0)

    def _note(self, seq_id: str, blocks: tuple[int, ...], ref_count_before: int) -> None:
        self._changes.tables.add(seq_id)
        for block in blocks:
            self._changes.ref_counts.setdefault(block, ref_count_before)


def _merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, with neighbours made one.

    >>> _merged([(4, 2), (0, 2), (2, 2)])
    [(0, 6)]
    """
    out: list[tuple[int, int]] = []
    for first, length in sorted(runs):
        if out and sum(out[-1]) == first:
            out[-1] = out[-1][0], out[-1][1] + length
        else:
            out.append((first, length))
    return out
