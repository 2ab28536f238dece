"""The KV cache at one moment, rebuilt from the deltas of a trace. Views draw it, validate() checks it.

This file must not know any engine: it believes nothing but the deltas, and says where they contradict themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmlab.trace.records import BlockDelta, CellDelta, KvDelta


def runs(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Consecutive numbers as (first, length).

    >>> runs([4, 5, 6, 9])
    ((4, 3), (9, 1))
    """
    out: list[list[int]] = []
    for i in indices:
        if out and out[-1][0] + out[-1][1] == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return tuple((first, length) for first, length in out)


class CellState:
    """Who holds which cell at which position. `apply` returns the contradictions of one delta as sentences."""

    def __init__(self) -> None:
        self.position: dict[int, int] = {}  # cell -> position, used cells only
        self.holders: dict[int, set[str]] = {}  # cell -> request ids, used cells only
        self.cells_of: dict[str, set[int]] = {}  # request id -> its cells
        self.num_attended = 0
        self.head: int | None = None

    def apply(self, delta: CellDelta) -> list[str]:
        wrong = [*self._free(delta), *self._share(delta), *self._write(delta)]
        self.num_attended, self.head = delta.num_attended, delta.head
        if len(self.position) != delta.num_used:
            wrong.append(f"the deltas leave {len(self.position)} cells used, the engine counts {delta.num_used}")
        if delta.num_used > delta.num_cells:
            wrong.append(f"{delta.num_used} cells used of {delta.num_cells}")
        return wrong

    def snapshot(self, num_cells: int) -> CellDelta:
        """This state as a change of an empty cache."""
        written: dict[str, tuple[tuple[int, int, int], ...]] = {}
        shared: dict[str, tuple[tuple[int, int], ...]] = {}
        first_holder = {cell: min(who) for cell, who in self.holders.items()}
        for request_id in sorted(self.cells_of):
            mine = sorted(c for c in self.cells_of[request_id] if first_holder[c] == request_id)
            also = sorted(c for c in self.cells_of[request_id] if first_holder[c] != request_id)
            if mine:
                written[request_id] = tuple(self._runs_with_positions(mine))
            if also:
                shared[request_id] = runs(also)
        return CellDelta(
            written=written,
            shared=shared,
            num_used=len(self.position),
            num_cells=num_cells,
            num_attended=self.num_attended,
            head=self.head,
        )

    def _runs_with_positions(self, cells: list[int]) -> Iterator[tuple[int, int, int]]:
        start = 0
        for i in range(1, len(cells) + 1):
            last, here = cells[i - 1], cells[i] if i < len(cells) else None
            if here != last + 1 or self.position[here] != self.position[last] + 1:
                yield cells[start], self.position[cells[start]], i - start
                start = i

    def _free(self, delta: CellDelta) -> Iterator[str]:
        for request_id, freed in delta.freed.items():
            for first, length in freed:
                for cell in range(first, first + length):
                    if request_id not in self.holders.get(cell, ()):
                        yield f"cell {cell} is freed by {request_id}, which does not hold it"
                        continue
                    self._drop(cell, request_id)

    def _drop(self, cell: int, request_id: str) -> None:
        self.holders[cell].discard(request_id)
        self.cells_of[request_id].discard(cell)
        if not self.holders[cell]:
            del self.holders[cell], self.position[cell]
        if not self.cells_of[request_id]:
            del self.cells_of[request_id]

    def _share(self, delta: CellDelta) -> Iterator[str]:
        # In a snapshot a cell may be shared in the same delta that writes it.
        fresh = {c for rs in delta.written.values() for first, _, n in rs for c in range(first, first + n)}
        for request_id, shared in delta.shared.items():
            for first, length in shared:
                for cell in range(first, first + length):
                    if cell not in self.position and cell not in fresh:
                        yield f"cell {cell} is shared with {request_id}, but it is empty"
                        continue
                    self._hold(cell, request_id)

    def _write(self, delta: CellDelta) -> Iterator[str]:
        for request_id, written in delta.written.items():
            for first, position, length in written:
                for i in range(length):
                    cell = first + i
                    if cell >= delta.num_cells:
                        yield f"cell {cell} is written, the cache has {delta.num_cells}"
                        break
                    if cell in self.position:
                        yield f"cell {cell} is written for {request_id} while {sorted(self.holders[cell])} hold it"
                    self.position[cell] = position + i
                    self._hold(cell, request_id)

    def _hold(self, cell: int, request_id: str) -> None:
        self.holders.setdefault(cell, set()).add(request_id)
        self.cells_of.setdefault(request_id, set()).add(cell)


class BlockState:
    """Block tables, reference counts and hashes. `apply` returns the contradictions of one delta as sentences."""

    def __init__(self) -> None:
        self.tables: dict[str, list[int]] = {}  # request id -> block ids, in logical order
        self.ref_counts: dict[int, int] = {}  # block id -> count, blocks in use only
        self.cached: set[int] = set()  # blocks with a hash

    def apply(self, delta: BlockDelta) -> list[str]:
        wrong: list[str] = []
        for request_id, blocks in delta.freed.items():
            table = self.tables.get(request_id, [])
            for block in blocks:
                if block in table:
                    table.remove(block)
                else:
                    wrong.append(f"block {block} leaves the table of {request_id}, which does not hold it")
            if not table:
                self.tables.pop(request_id, None)
        for request_id, blocks in delta.allocated.items():
            self.tables.setdefault(request_id, []).extend(blocks)
        for block, count in delta.ref_counts.items():
            if count:
                self.ref_counts[block] = count
            else:
                self.ref_counts.pop(block, None)
        self.cached.difference_update(delta.evicted)
        self.cached.update(delta.cached)
        return wrong + list(self._contradictions(delta))

    def _contradictions(self, delta: BlockDelta) -> Iterator[str]:
        held: dict[int, int] = {}
        for table in self.tables.values():
            for block in table:
                held[block] = held.get(block, 0) + 1
        for block in sorted(held.keys() | self.ref_counts.keys()):
            if held.get(block, 0) != self.ref_counts.get(block, 0):
                yield (
                    f"block {block} has ref_count {self.ref_counts.get(block, 0)}, "
                    f"but {held.get(block, 0)} block tables hold it"
                )
        if len(held) + delta.num_free != delta.num_blocks:
            yield f"{len(held)} blocks held + {delta.num_free} free are not {delta.num_blocks} in all"

    def snapshot(self, num_blocks: int) -> BlockDelta:
        """This state as a change of an empty cache."""
        return BlockDelta(
            allocated={r: tuple(t) for r, t in self.tables.items()},
            cached=tuple(sorted(self.cached)),
            ref_counts=dict(self.ref_counts),
            num_free=num_blocks - len(self.ref_counts),
            num_blocks=num_blocks,
        )


def state_for(delta: KvDelta) -> CellState | BlockState:
    """An empty state of the kind that this delta changes."""
    return CellState() if isinstance(delta, CellDelta) else BlockState()
