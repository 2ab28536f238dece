"""The numbers beside a picture of paged KV: blocks held, shared, cached, free; slots written, wasted, reserved.

This file must not know cells: figures_cells.py is its twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmlab.trace import BlockDelta, Header, KvDelta, ScheduledRequest, Step
from llmlab.views.figures_base import Figures, KvFigures

_NAMES = ("held", "shared", "cached", "free", "tokens", "waste", "saved", "reserved", "total_slots")


class BlockFigures(KvFigures):
    """A paged cache. Slots are places for one token; a block that several requests hold counts once."""

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._block_size = header.block_size
        self.tables: dict[str, list[int]] = {}  # request id -> blocks, in logical order
        self._ref_counts: dict[int, int] = {}  # block -> tables that hold it, held blocks only
        self._num_entries = 0  # of all tables
        self._num_shared = 0
        self.cached: set[int] = set()
        self._num_cached_held = 0
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
        is_held = self._ref_counts.__contains__
        evicted = self.cached.intersection(delta.evicted)
        self._num_cached_held -= sum(map(is_held, evicted))
        self.cached -= evicted
        shared: list[tuple[int, str, int]] = []
        for request_id, blocks in delta.allocated.items():
            if len(blocks) == 1 and not is_held(blocks[0]):  # as mostly, for many requests in each step
                self._append(request_id, blocks[0])
            else:
                shared += self._allocate(request_id, blocks)
        cached = set(delta.cached) - self.cached
        self._num_cached_held += sum(map(is_held, cached))
        self.cached |= cached
        self.has_groups = self.has_groups or bool(delta.groups)
        for block, request_id, logical in shared:
            if block not in self.cached or self._fill(request_id, logical) < (self._block_size or 0):
                self._unfilled.add(block)
        for request_id in delta.freed:
            if request_id not in self.running and request_id not in self.tables:
                self._forget(request_id)

    def _free(self, request_id: str, blocks: Iterable[int]) -> None:
        gone, kept = set(blocks), []
        table = self.tables.pop(request_id, [])
        if not self._num_shared and gone.issuperset(table):  # all of them, and nobody else holds one
            self._num_entries -= len(table)
            self._num_cached_held -= len(gone & self.cached)
            for block in table:
                del self._ref_counts[block]
            self._unknown.discard(request_id)
            return
        for block in table:
            if block not in gone:
                kept.append(block)
                continue
            self._num_entries -= 1
            left = self._ref_counts[block] - 1
            self._num_shared -= left == 1
            if left:
                self._ref_counts[block] = left
            else:
                del self._ref_counts[block]
                self._num_cached_held -= block in self.cached
        if kept:
            self.tables[request_id] = kept
        else:
            self._unknown.discard(request_id)

    def _append(self, request_id: str, block: int) -> None:
        """One more block for a request, which nobody holds."""
        self.tables.setdefault(request_id, []).append(block)
        self._ref_counts[block] = 1
        self._num_entries += 1
        self._num_cached_held += block in self.cached

    def _allocate(self, request_id: str, blocks: Sequence[int]) -> Iterable[tuple[int, str, int]]:
        """Yields the blocks that others hold too, with the place in this table."""
        table, new = self.tables.setdefault(request_id, []), set(blocks)
        if len(new) == len(blocks) and self._ref_counts.keys().isdisjoint(new):  # nobody holds one of them
            self._ref_counts.update(dict.fromkeys(blocks, 1))
            self._num_entries += len(new)
            self._num_cached_held += len(new & self.cached)
            table += blocks
            return
        for block in blocks:
            before = self._ref_counts.get(block, 0)
            self._ref_counts[block] = before + 1
            self._num_entries += 1
            self._num_shared += before == 1
            if before:
                yield block, request_id, len(table)
            else:
                self._num_cached_held += block in self.cached
            table.append(block)

    def _fill(self, request_id: str, logical: int) -> int:
        """Tokens that a request has in a block of its table."""
        size = self._block_size or 0
        return max(0, min(size, self.tokens_of(request_id) - logical * size))

    def _of(self, delta: KvDelta | None) -> Figures:
        if not isinstance(delta, BlockDelta):
            return dict.fromkeys(_NAMES)
        num_held, size = len(self._ref_counts), self._block_size
        num_cached = len(self.cached) - self._num_cached_held
        tokens = self._written(num_held)
        return {
            "held": num_held,
            "shared": self._num_shared,
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
