"""BlockChanges: what one engine step did to vLLM's KV blocks, net: nothing that was undone within the step is told.

This file must not know vLLM: vllm_blocks.py reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llmlab.trace import BlockDelta


@dataclass(slots=True, eq=False)
class BlockChanges:
    """Changes in the order they are made known: append() and free() for tables, cache() and evict() for hashes."""

    allocated: dict[str, list[int]] = field(default_factory=dict)
    freed: dict[str, list[int]] = field(default_factory=dict)
    # Ordered sets: block -> None.
    cached: dict[int, None] = field(default_factory=dict)
    evicted: dict[int, None] = field(default_factory=dict)
    # The KV cache group of allocated blocks, where a model has several.
    group_of: dict[int, int] = field(default_factory=dict)
    # Read when the step has ended.
    ref_counts: dict[int, int] = field(default_factory=dict)
    free_head: tuple[int, ...] = ()
    num_free: int = 0

    @classmethod
    def of(cls, delta: BlockDelta) -> BlockChanges:
        """What a record tells."""
        changes = cls(
            allocated={r: list(blocks) for r, blocks in delta.allocated.items()},
            freed={r: list(blocks) for r, blocks in delta.freed.items()},
            cached=dict.fromkeys(delta.cached),
            evicted=dict.fromkeys(delta.evicted),
            ref_counts=dict(delta.ref_counts),
        )
        for request_id, groups in delta.groups.items():
            changes.group_of.update(zip(delta.allocated[request_id], groups, strict=True))
        return changes

    def __bool__(self) -> bool:
        """False when nothing is known to have changed."""
        return bool(self.allocated or self.freed or self.cached or self.evicted)

    def append(self, request_id: str, blocks: Iterable[int]) -> None:
        self.allocated.setdefault(request_id, []).extend(blocks)

    def free(self, request_id: str, blocks: Iterable[int]) -> None:
        new = self.allocated.get(request_id, [])
        for block in blocks:
            if block in new:
                new.remove(block)
            else:
                self.freed.setdefault(request_id, []).append(block)
        if not new:
            self.allocated.pop(request_id, None)

    def cache(self, block: int) -> None:
        self.cached[block] = None

    def evict(self, block: int) -> None:
        if block in self.cached:
            del self.cached[block]
        else:
            self.evicted[block] = None

    def forget(self, request_id: str, held: list[int]) -> list[int]:
        """Take a request out. Returns what it held before this step, of what it holds after it and what was freed."""
        new = set(self.allocated.pop(request_id, ()))
        return [*self.freed.pop(request_id, ()), *(block for block in held if block not in new)]

    def then(self, later: BlockChanges) -> BlockChanges:
        """Make the changes of a later step, or of a later part of this one, ours too."""
        for request_id, blocks in later.freed.items():
            self.free(request_id, blocks)
        for request_id, blocks in later.allocated.items():
            self.append(request_id, blocks)
        for block in later.evicted:
            self.evict(block)
        for block in later.cached:
            self.cache(block)
        self.ref_counts.update(later.ref_counts)
        self.group_of.update(later.group_of)
        return self

    def touched(self) -> set[int]:
        """Blocks whose reference count may have changed."""
        return {block for tables in (self.allocated, self.freed) for blocks in tables.values() for block in blocks}

    def record(self, num_blocks: int) -> BlockDelta:
        groups = {}
        if self.group_of:
            groups = {r: tuple(self.group_of.get(b, 0) for b in blocks) for r, blocks in self.allocated.items()}
        return BlockDelta(
            allocated={r: tuple(blocks) for r, blocks in self.allocated.items()},
            freed={r: tuple(blocks) for r, blocks in self.freed.items()},
            cached=tuple(self.cached),
            evicted=tuple(self.evicted),
            ref_counts=self.ref_counts,
            free_head=self.free_head,
            groups=groups,
            num_free=self.num_free,
            num_blocks=num_blocks,
        )
