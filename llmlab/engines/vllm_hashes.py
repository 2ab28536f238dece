"""Which blocks of vLLM got a hash (can be hit from now on) and which lost theirs, by reading all of them or the few
that can have changed.

A block has a hash once it is full; it keeps it when it is freed, and loses it when it is handed out again. This file
must not know who holds a block.
Source: vllm/v1/core/block_pool.py BlockPool.cache_full_blocks, _maybe_evict_cached_block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmlab.engines.vllm_changes import BlockChanges


class AllHashes:
    """Reads every block: exact, and linear in the size of the cache."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._hashes: list[object] = [None] * len(pool.blocks)

    @property
    def blocks(self) -> set[int]:
        """Those that have a hash."""
        return {block for block, value in enumerate(self._hashes) if value is not None}

    def look(self, changes: BlockChanges) -> None:
        """Note what is different since the last look."""
        before, self._hashes = self._hashes, [block.block_hash for block in self._pool.blocks]
        # By identity: a block that is handed out and filled again may get an equal hash, but a new object.
        for block, (old, new) in enumerate(zip(before, self._hashes, strict=True)):
            if old is not new:
                if old is not None:
                    changes.evict(block)
                if new is not None:
                    changes.cache(block)


class TrackedHashes:
    """Reads the blocks that were handed out, and those that must be full by now: linear in what changed.

    When vLLM has a new map of hashes (reset_prefix_cache), those that had one are read; when their number is not what
    we count, all blocks once.
    """

    def __init__(self, scheduler: Any, pool: Any, block_size: int) -> None:
        self._requests: Mapping[str, Any] = scheduler.requests
        self._pool, self._block_size = pool, block_size
        self._tokens_per_step = 1 + int(getattr(scheduler, "num_spec_tokens", 0) or 0)
        self._hashes: dict[int, Any] = {}  # block -> hash
        self._vllms_map = pool.cached_block_hash_to_block
        self._num_blocks_of: Counter[Any] = Counter()  # hash -> blocks that have it
        # Hashes of vLLM's that are not those of whole blocks.
        self._num_others = 0
        self._num_full: dict[str, int] = {}  # request id -> blocks at the head of its table that have a hash
        # Requests whose next block is full, or may become so in any step; the others by the first step it can be full.
        self._near: set[str] = set()
        self._due: dict[int, list[str]] = {}
        self._step = 0

    @property
    def blocks(self) -> set[int]:
        """Those that have a hash."""
        return set(self._hashes)

    def appended(self, request_id: str, blocks: Sequence[int], changes: BlockChanges) -> None:
        """These blocks were appended to a block table: hit in the cache, or handed out from the free queue."""
        for block in blocks:
            self._look_at(block, changes)
        if request_id not in self._num_full:
            self._num_full[request_id] = 0
            self._near.add(request_id)

    def dropped(self, request_id: str) -> None:
        """This request holds no block any more."""
        self._num_full.pop(request_id, None)
        self._near.discard(request_id)

    def next_step(self) -> None:
        self._step += 1
        if due := self._due.pop(self._step, None):
            self._near.update(r for r in due if r in self._num_full)

    @property
    def may_fill(self) -> bool:
        """A block may become full in this step."""
        return bool(self._near)

    def look(self, tables: Mapping[str, Sequence[int]], changes: BlockChanges) -> None:
        """Note what is different since the last look."""
        if self._near:
            for request_id in list(self._near):
                self._look_along(request_id, tables.get(request_id, ()), changes)
        now = self._pool.cached_block_hash_to_block
        if now is not self._vllms_map:
            self._vllms_map, self._num_others = now, 0
            for block in list(self._hashes):
                self._look_at(block, changes)
        if len(now) != len(self._num_blocks_of) + self._num_others:
            self.look_everywhere(changes)

    def look_everywhere(self, changes: BlockChanges) -> None:
        for block in range(len(self._pool.blocks)):
            self._look_at(block, changes)
        self._vllms_map = self._pool.cached_block_hash_to_block
        self._num_others = len(self._vllms_map) - len(self._num_blocks_of)

    def look_at(self, blocks: Iterable[int], changes: BlockChanges) -> None:
        """Note what is different in these blocks, whose place in a table tells nothing."""
        for block in blocks:
            self._look_at(block, changes)
        self.look({}, changes)

    def _look_along(self, request_id: str, table: Sequence[int], changes: BlockChanges) -> None:
        """Go on where the last look at this block table ended, and note when to come back."""
        num_full, size, request = self._num_full[request_id], self._block_size, self._requests.get(request_id)
        num_tokens = len(table) * size if request is None else request.num_tokens
        end = min(len(table), num_tokens // size)
        while num_full < end and self._look_at(table[num_full], changes):
            num_full += 1
        self._num_full[request_id] = num_full
        if request is None or request.num_computed_tokens < num_tokens:
            return  # a prefill: it takes as many tokens a step as it is given
        # A block gets its hash when vLLM schedules a request whose known tokens fill it.
        num_missing = (num_full + 1) * size - num_tokens
        if num_missing > 0:
            self._near.discard(request_id)
            num_steps = -(-num_missing // self._tokens_per_step)
            self._due.setdefault(self._step + num_steps, []).append(request_id)

    def _look_at(self, block: int, changes: BlockChanges) -> bool:
        """True when the block has a hash."""
        old, new = self._hashes.get(block), self._pool.blocks[block].block_hash
        if old is not new:
            if old is not None:
                del self._hashes[block]
                changes.evict(block)
                self._num_blocks_of[old] -= 1
                if not self._num_blocks_of[old]:
                    del self._num_blocks_of[old]
            if new is not None:
                self._hashes[block] = new
                changes.cache(block)
                self._num_blocks_of[new] += 1
        return new is not None
