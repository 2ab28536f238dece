"""Whether the deltas of a paged KV cache agree with themselves and with what was scheduled.

This file must not know cells: cell_checks.py is its twin.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmlab.trace.block_state import BlockState
from llmlab.trace.lifecycle import Advance, Lifecycles
from llmlab.trace.prefixes import Prefixes
from llmlab.trace.records import BlockDelta, Header, KvDelta, Step
from llmlab.trace.rules import Finding
from llmlab.trace.runs import in_words


class BlockChecks:
    """Follows the blocks through a trace."""

    def __init__(self, header: Header, lifecycles: Lifecycles) -> None:
        self._lifecycles = lifecycles
        self._state = BlockState()
        self._prefixes = Prefixes(lifecycles.lives)
        self._num_blocks, self._block_size = header.num_blocks, header.block_size
        self._takes_more = header.capabilities.speculative or header.capabilities.reserves
        # block -> (request, index in its block table): whose tokens it holds. They stay when it is freed.
        self._filled: dict[int, tuple[str, int]] = {}
        self._preempted: tuple[str, ...] = ()  # in the step before

    def begin(self, delta: KvDelta) -> list[Finding]:
        """The cache before the first step, as a change of an empty one."""
        if not isinstance(delta, BlockDelta):
            return []
        for request_id, blocks in delta.allocated.items():
            self._filled.update({block: (request_id, i) for i, block in enumerate(blocks)})
        return self._state.apply(delta)

    def step(self, step: Step) -> Iterator[Finding]:
        """After Lifecycles.step of the same step. A step without a delta says nothing about KV."""
        delta = step.kv
        if delta is None:
            self._preempted = ()
            return
        if not isinstance(delta, BlockDelta):
            yield Finding("kv", "a delta of cells in a trace of blocks")
            return
        if delta.num_blocks != self._num_blocks and self._num_blocks is not None:
            yield Finding("total", f"the cache has {delta.num_blocks} blocks, before it had {self._num_blocks}")
        self._num_blocks = delta.num_blocks
        yield from self._state.apply(delta)
        yield from self._check_holders(delta, step)
        yield from self._check_forks(delta, step)
        # Where layers keep KV in different ways, a table does not tell which tokens its blocks hold.
        if self._block_size and not self._state.groups:
            advances = {advance.request_id: advance for advance in self._lifecycles.advances}
            self._fill(delta, advances, self._block_size)
            for advance in advances.values():
                if advance.request_id not in step.finished:
                    yield from self._check_length(advance, self._block_size)
                if advance.is_admission and advance.num_hit:
                    yield from self._check_hits(advance, self._block_size)
            yield from self._check_hashed(delta, advances, self._block_size)
        self._preempted = step.preempted

    def _check_holders(self, delta: BlockDelta, step: Step) -> Iterator[Finding]:
        """Only who lives holds blocks."""
        for request_id, blocks in delta.allocated.items():
            life = self._lifecycles.lives.get(request_id)
            if life is None:
                yield Finding("request", f"{request_id} gets {in_words('block', blocks)}, but has no request record")
            elif life.ended and request_id not in step.finished:
                yield Finding("end", f"{request_id} gets {in_words('block', blocks)}, it ended {life.ended}")
        scheduled = {row.request_id for row in step.scheduled}
        for request_id in step.finished:
            if table := self._state.tables.get(request_id):
                yield Finding("kv_length", f"{request_id} has ended and still holds {in_words('block', table)}")
        for request_id in self._preempted:
            table = self._state.tables.get(request_id)
            if table and request_id not in scheduled and request_id not in step.finished:
                text = f"{request_id} was preempted in the step before and still holds {in_words('block', table)}"
                yield Finding("preempted", text)

    def _check_forks(self, delta: BlockDelta, step: Step) -> Iterator[Finding]:
        """A child begins with the blocks of its parent; what is copied is copied into a block of who writes on."""
        for child, parent in step.forked.items():
            tables = [self._state.tables.get(request_id, []) for request_id in (child, parent)]
            if tables[0] != tables[1] and parent not in step.finished:
                yield Finding("prefix", f"{child} is forked from {parent}, and has other blocks: {tables}")
        new = {block for blocks in delta.allocated.values() for block in blocks}
        for block in delta.copied:
            if block not in new:
                yield Finding("kv", f"block {block} is a copy of block {delta.copied[block]}, but nobody gets it")

    def _fill(self, delta: BlockDelta, advances: dict[str, Advance], size: int) -> None:
        """Remember whose tokens each new block holds."""
        for block in delta.evicted:
            self._filled.pop(block, None)
        for request_id, blocks in delta.allocated.items():
            first = len(self._state.tables.get(request_id, ())) - len(blocks)
            advance = advances.get(request_id)
            num_hit = advance.num_hit // size if advance and advance.is_admission else 0
            for i, block in enumerate(blocks, first):
                if i >= num_hit:
                    self._filled[block] = (request_id, i)
        for request_id, blocks in delta.freed.items():
            for block in set(blocks).intersection(self._state.ref_counts):
                owner, i = self._filled.get(block, ("", 0))
                if owner == request_id:  # who still holds it goes on filling it
                    self._filled[block] = self._state.holder(block), i
        for block in delta.cached:
            # Who fills a block is scheduled, and holds it, or did when the step began. Else it was one who got and left
            # it within this step, which no delta tells.
            request_id, _ = self._filled.get(block, ("", 0))
            held = (*self._state.tables.get(request_id, ()), *delta.freed.get(request_id, ()))
            if request_id not in advances or block not in held:
                self._filled.pop(block, None)

    def _check_length(self, advance: Advance, size: int) -> Iterator[Finding]:
        num_held = len(self._state.tables.get(advance.request_id, ()))
        expected = -(-advance.num_computed // size)
        # Engines that speculate or reserve take room for tokens to come.
        if num_held < expected or (num_held > expected and not self._takes_more and not advance.num_draft):
            held = f"{num_held} block{'' if num_held == 1 else 's'} of {size}"
            text = f"{advance.request_id} holds {held} for {advance.num_computed} computed tokens, expected {expected}"
            yield Finding("kv_length", text)

    def _check_hits(self, advance: Advance, size: int) -> Iterator[Finding]:
        name = advance.request_id
        if advance.num_hit % size:
            yield Finding("prefix", f"{name} has a prefix hit of {advance.num_hit} tokens, blocks have {size}")
        for i, block in enumerate(self._state.tables.get(name, ())[: advance.num_hit // size]):
            owner, index = self._filled.setdefault(block, (name, i))
            if block not in self._state.cached:
                yield Finding("prefix", f"{name} hits block {block}, which has no hash")
                return
            if index != i or self._prefixes.differ(name, owner, (i + 1) * size - 1):
                yield Finding("prefix", f"{name} hits block {block}, which {owner} filled with other tokens")
                return

    def _check_hashed(self, delta: BlockDelta, advances: dict[str, Advance], size: int) -> Iterator[Finding]:
        for block in delta.cached:
            request_id, i = self._filled.get(block, ("", 0))
            advance = advances.get(request_id)
            if advance and advance.num_computed < (i + 1) * size:
                num_computed = max(0, advance.num_computed - i * size)
                yield Finding("prefix", f"block {block} gets a hash with {num_computed} of its {size} tokens computed")
