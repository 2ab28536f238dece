"""Paged KV at one moment: block tables, reference counts and hashes, rebuilt from the deltas of a trace.

This file must not know any engine: it believes nothing but the deltas, and says where they contradict themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from llmlab.trace.records import BlockDelta
from llmlab.trace.rules import Finding
from llmlab.trace.runs import in_words


class BlockState:
    """Who holds which block. `apply` returns the contradictions of one delta, each told once."""

    def __init__(self) -> None:
        self.tables: dict[str, list[int]] = {}  # request id -> block ids, in logical order
        self.ref_counts: dict[int, int] = {}  # block id -> count, blocks in use only
        self.cached: set[int] = set()  # blocks with a hash
        # KV cache group of each block that was ever handed out, for models that have several (BlockDelta.groups).
        self.groups: dict[int, int] = {}
        self._num_tables: dict[int, int] = {}  # block id -> tables that hold it, blocks in use only
        self._num_miscounted = 0  # held and free, less the total

    def apply(self, delta: BlockDelta) -> list[Finding]:
        found: list[Finding] = []
        changed = set(delta.ref_counts)
        for request_id, blocks in delta.freed.items():
            changed.update(self._free(request_id, blocks, found))
        self._evict(delta, found)
        for request_id, blocks in delta.allocated.items():
            changed.update(self._allocate(request_id, blocks, delta.num_blocks, found))
            self._group(request_id, blocks, delta, found)
        self._cache(delta, found)
        self._check_free_head(delta, found)
        self._compare_counts(delta, changed, found)
        return found

    def holder(self, block: int) -> str:
        """The first request that holds a block; "" when nobody does."""
        return next((request_id for request_id, table in self.tables.items() if block in table), "")

    def snapshot(self, num_blocks: int) -> BlockDelta:
        """This state as a change of an empty cache."""
        return BlockDelta(
            allocated={r: tuple(t) for r, t in self.tables.items()},
            cached=tuple(sorted(self.cached)),
            ref_counts=dict(self.ref_counts),
            groups={r: tuple(self.groups[b] for b in t) for r, t in self.tables.items()} if self.groups else {},
            num_free=num_blocks - len(self.ref_counts),
            num_blocks=num_blocks,
        )

    def _free(self, request_id: str, blocks: Collection[int], found: list[Finding]) -> set[int]:
        table, gone = self.tables.get(request_id, []), set(blocks)
        if strange := gone.difference(table):
            found.append(Finding("kv", f"{request_id} frees {in_words('block', strange)}, which it does not hold"))
        elif len(gone) != len(blocks):
            found.append(Finding("kv", f"{request_id} frees a block twice: {list(blocks)[:16]}"))
        for block in gone.intersection(table):
            self._num_tables[block] -= 1
            if not self._num_tables[block]:
                del self._num_tables[block]
        left = [block for block in table if block not in gone]
        if left:
            self.tables[request_id] = left
        else:
            self.tables.pop(request_id, None)
        return gone

    def _evict(self, delta: BlockDelta, found: list[Finding]) -> None:
        for block in delta.evicted:
            if block not in self.cached:
                found.append(Finding("kv", f"block {block} loses its hash, it has none"))
            # What is allocated in this step is not held yet: an evicted block is reused at once.
            elif block in self._num_tables:
                holder = next(r for r, table in self.tables.items() if block in table)
                found.append(Finding("kv", f"block {block} loses its hash while {holder} holds it"))
        self.cached.difference_update(delta.evicted)

    def _allocate(self, request_id: str, blocks: Collection[int], num_blocks: int, found: list[Finding]) -> set[int]:
        table = self.tables.setdefault(request_id, [])
        for block in blocks:
            if block in table:
                found.append(Finding("kv", f"block {block} stands twice in the block table of {request_id}"))
                continue
            if block > num_blocks:  # vLLM counts from 1, its block 0 is no block
                found.append(Finding("kv", f"{request_id} gets block {block}, the cache has {num_blocks}"))
            table.append(block)
            self._num_tables[block] = self._num_tables.get(block, 0) + 1
        if not table:
            del self.tables[request_id]
        return set(blocks)

    def _cache(self, delta: BlockDelta, found: list[Finding]) -> None:
        for block in delta.cached:
            if block in self.cached:
                found.append(Finding("kv", f"block {block} gets a hash, it has one already"))
            self.cached.add(block)

    def _group(self, request_id: str, blocks: Collection[int], delta: BlockDelta, found: list[Finding]) -> None:
        if not delta.groups and not self.groups:
            return
        groups = delta.groups.get(request_id, ())
        if len(groups) != len(blocks):
            found.append(Finding("kv", f"{request_id} gets {len(blocks)} blocks, {len(groups)} of them have a group"))
        self.groups.update(itertools.zip_longest(blocks, groups[: len(blocks)], fillvalue=0))

    def _check_free_head(self, delta: BlockDelta, found: list[Finding]) -> None:
        """The next blocks to be handed out are free."""
        if len(set(delta.free_head)) != len(delta.free_head) or len(delta.free_head) > delta.num_free:
            text = f"{list(delta.free_head)} are said to be handed out next, of {delta.num_free} free blocks"
            found.append(Finding("kv", text))
        for block in delta.free_head:
            if block in self._num_tables:
                holder = next(r for r, table in self.tables.items() if block in table)
                found.append(Finding("kv", f"block {block} is said to be handed out next, {holder} holds it"))

    def _compare_counts(self, delta: BlockDelta, changed: set[int], found: list[Finding]) -> None:
        for block, count in delta.ref_counts.items():
            if count:
                self.ref_counts[block] = count
            else:
                self.ref_counts.pop(block, None)
        for block in sorted(changed):
            num_tables, ref_count = self._num_tables.get(block, 0), self.ref_counts.get(block, 0)
            if num_tables != ref_count:
                hold = "block table holds" if num_tables == 1 else "block tables hold"
                found.append(
                    Finding("ref_count", f"block {block} has ref_count {ref_count}, but {num_tables} {hold} it")
                )
        num_held = len(self._num_tables)
        num_miscounted = num_held + delta.num_free - delta.num_blocks
        if num_miscounted not in (0, self._num_miscounted):
            held = f"{num_held} block{'' if num_held == 1 else 's'} held"
            text = f"{held} + {delta.num_free} free are not {delta.num_blocks} in all"
            found.append(Finding("total", text))
        self._num_miscounted = num_miscounted
