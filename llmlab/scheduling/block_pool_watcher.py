"""BlockWatcher: the BlockDelta of each step, from what a pool did since the last one.

This file must not know an engine or a model.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Protocol

from llmlab.scheduling.block_pool import PoolChanges
from llmlab.scheduling.contracts import BlockCopy, BlockPool
from llmlab.scheduling.prefixes import common_prefix
from llmlab.trace import BlockDelta

NUM_NEXT_FREE = 16  # free blocks that a delta tells


class WatchedPool(BlockPool, Protocol):
    """A pool that says what changed: PagedPool, and the CheckedPool around one that a student wrote."""

    def take_changes(self) -> PoolChanges: ...
    def hash_of(self, block_id: int) -> bytes | None: ...
    def next_free(self, num_blocks: int) -> tuple[int, ...]: ...


class BlockWatcher:
    """Follows one pool."""

    def __init__(self, pool: WatchedPool) -> None:
        self._pool = pool
        self._tables: dict[str, tuple[int, ...]] = {}  # as of the last delta
        self._cached: set[int] = set()
        self._is_new = False  # an empty pool took the place of the one before

    def move_to(self, pool: WatchedPool) -> None:
        """From here on another pool, an empty one: the next delta tells that everything is free."""
        self._pool, self._is_new = pool, True

    def delta(self, alive: Container[str], copies: Iterable[BlockCopy] = ()) -> BlockDelta:
        """The change since the last call. `alive`: the sequences that have a block table now; `copies`: of the step."""
        if self._is_new:
            return self._emptied()
        pool, changes = self._pool, self._pool.take_changes()
        allocated: dict[str, tuple[int, ...]] = {}
        freed: dict[str, tuple[int, ...]] = {}
        for seq_id in sorted(changes.tables):
            before = self._tables.pop(seq_id, ())
            now = pool.block_table(seq_id) if seq_id in alive else ()
            num_kept = common_prefix(before, now, min(len(before), len(now)))
            if lost := before[num_kept:]:
                freed[seq_id] = lost
            if gained := now[num_kept:]:
                allocated[seq_id] = gained
            if now:
                self._tables[seq_id] = now
        hashes = [(block, before, pool.hash_of(block)) for block, before in changes.hashes.items()]
        counts = [(block, before, pool.ref_count(block)) for block, before in changes.ref_counts.items()]
        evicted = [block for block, before, now in hashes if before is not None and before != now]
        cached = [block for block, before, now in hashes if now is not None and before != now]
        self._cached.difference_update(evicted)
        self._cached.update(cached)
        written = {block for blocks in allocated.values() for block in blocks}
        return BlockDelta(
            allocated=allocated,
            freed=freed,
            evicted=tuple(evicted),
            cached=tuple(cached),
            ref_counts={block: now for block, before, now in counts if before != now},
            copied={pair.dst: pair.src for pair in copies if pair.dst in written},
            free_head=pool.next_free(NUM_NEXT_FREE) if allocated or freed else (),
            num_free=pool.num_free_blocks,
            num_blocks=pool.num_blocks,
        )

    def _emptied(self) -> BlockDelta:
        freed, evicted = dict(self._tables), tuple(sorted(self._cached))
        self._is_new, self._tables, self._cached = False, {}, set()
        return BlockDelta(
            freed=freed,
            evicted=evicted,
            ref_counts={block: 0 for table in freed.values() for block in table},
            num_free=self._pool.num_free_blocks,
            num_blocks=self._pool.num_blocks,
        )
