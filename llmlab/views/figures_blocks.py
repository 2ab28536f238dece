"""The numbers beside a picture of paged KV: blocks held, shared, cached, free; slots written, wasted, reserved.

This file must not know cells: figures_cells.py is its twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmlab.trace import BlockDelta, Header, KvDelta, ScheduledRequest, Step
from llmlab.views.figures_base import Figures, KvFigures

_NAMES = ("held", "shared", "cached", "free", "tokens", "waste", "saved", "reserved", "total_slots")


class BlockFigures(KvFigures):
    """A paged cache. Slots are places for one token; a block that several requests hold counts once."""

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._block_size = header.block_size
        self.tables: dict[str, list[int]] = {}  # request id -> blocks, in logical order
        self._num_entries = 0  # of all tables
        self._held: set[int] = set()
        self._num_holders: dict[int, int] = {}  # block -> tables that hold it, of those that several hold
        self.cached: set[int] = set()
        self._kept: set[int] = set()  # cached, and nobody holds it
        # Shared blocks that some holder has not filled. Blocks with a hash are full, so vLLM has none.
        self._unfilled: set[int] = set()
        # Holders when the trace begins: only their first share tells how many tokens they have.
        self._unknown: set[str] = set()
        # Layers that keep KV in different ways: a table does not tell which tokens its blocks hold.
        self.has_groups = False

    def start(self, delta: KvDelta) -> None:
        self._unknown = set(delta.receivers)
        for request_id in delta.receivers:
            self._come(request_id)
        self._change(delta)

    def held_by(self, request_id: str) -> int:
        return len(self.tables.get(request_id, ()))

    def _schedule(self, step: Step, apart: Sequence[ScheduledRequest]) -> None:
        super()._schedule(step, apart)
        if self._unknown:
            self._unknown.difference_update(row.request_id for row in step.scheduled)

    def _end(self, request_id: str) -> None:
        if request_id not in self.tables:  # else its tokens count as long as it holds their blocks
            self._forget(request_id)

    def _change(self, delta: KvDelta) -> None:
        if not isinstance(delta, BlockDelta):
            return
        for request_id, blocks in delta.freed.items():
            self._free(request_id, blocks)
        if delta.evicted:
            self.cached.difference_update(delta.evicted)
            self._kept.difference_update(delta.evicted)
        shared = self._allocate(delta) if delta.allocated else []
        if delta.cached:
            self.cached.update(delta.cached)
            self._kept.update(set(delta.cached) - self._held)
        self.has_groups = self.has_groups or bool(delta.groups)
        for block, request_id, logical in shared:
            if block not in self.cached or self._fill(request_id, logical) < (self._block_size or 0):
                self._unfilled.add(block)
        for request_id in delta.freed:
            if request_id not in self.running and request_id not in self.tables:
                self._forget(request_id)

    def _free(self, request_id: str, blocks: Iterable[int]) -> None:
        gone, table = set(blocks), self.tables.pop(request_id, [])
        kept = [] if gone.issuperset(table) else [block for block in table if block not in gone]
        left = [block for block in table if block in gone] if kept else table
        self._num_entries -= len(left)
        if self._num_holders:
            left = self._free_shared(left)
        self._held.difference_update(left)
        self._kept.update(self.cached.intersection(left))
        if kept:
            self.tables[request_id] = kept
        else:
            self._unknown.discard(request_id)

    def _free_shared(self, blocks: Iterable[int]) -> list[int]:
        """One holder less for each of these blocks; those that nobody holds any more."""
        left = []
        for block in blocks:
            num_holders = self._num_holders.pop(block, 1) - 1
            if num_holders > 1:
                self._num_holders[block] = num_holders
            elif not num_holders:
                left.append(block)
        return left

    def _allocate(self, delta: BlockDelta) -> list[tuple[int, str, int]]:
        """The blocks that others hold too, each with a request that got it and the place in its table."""
        shared: list[tuple[int, str, int]] = []
        new = [block for blocks in delta.allocated.values() for block in blocks]
        held = set(new)
        is_apart = len(held) == len(new) and self._held.isdisjoint(held)  # nobody holds one of them, as mostly
        for request_id, blocks in delta.allocated.items():
            table = self.tables.setdefault(request_id, [])
            if not is_apart:
                shared += self._share(request_id, blocks, len(table))
            table += blocks
        self._num_entries += len(new)
        self._held |= held
        self._kept -= held
        return shared

    def _share(self, request_id: str, blocks: Iterable[int], first: int) -> Iterator[tuple[int, str, int]]:
        """One holder more for each of these blocks, which are in a table from the place `first` on."""
        for place, block in enumerate(blocks, start=first):
            if block in self._held:
                self._num_holders[block] = self._num_holders.get(block, 1) + 1
                yield block, request_id, place
            self._held.add(block)

    def _fill(self, request_id: str, logical: int) -> int:
        """Tokens that a request has in a block of its table."""
        size = self._block_size or 0
        return max(0, min(size, self.tokens_of(request_id) - logical * size))

    def _of(self, delta: KvDelta | None) -> Figures:
        if not isinstance(delta, BlockDelta):
            return dict.fromkeys(_NAMES)
        num_held, num_cached, size = len(self._held), len(self._kept), self._block_size
        tokens = self._written(num_held)
        return {
            "held": num_held,
            "shared": len(self._num_holders),
            "cached": num_cached,
            "free": delta.num_blocks - num_held - num_cached,
            "tokens": tokens,
            "waste": None if tokens is None or not num_held else round(1 - tokens / (num_held * (size or 1)), 4),
            "saved": self._num_entries - num_held,
            "reserved": self._reserved,
            "total_slots": delta.num_blocks * size if size else None,
        }

    def _written(self, num_held: int) -> int | None:
        """Slots in held blocks that hold a token."""
        size = self._block_size
        if not size or self._unknown or self.has_groups:
            return None
        # As if each shared block were full for each holder: all but one of them share that many tokens.
        written = self._num_tokens - size * (self._num_entries - num_held)
        for block in list(self._unfilled):
            fills = [self._fill(r, table.index(block)) for r, table in self.tables.items() if block in table]
            if len(fills) < 2 or min(fills) == size:
                self._unfilled.discard(block)
            else:
                written += size * (len(fills) - 1) - (sum(fills) - max(fills))
        return min(written, num_held * size)
