"""llama.cpp's KV cells at one moment, rebuilt from the deltas of a trace.

This file must not know any engine: it believes nothing but the deltas, and says where they contradict themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmlab.trace.records import CellDelta
from llmlab.trace.rules import Finding
from llmlab.trace.runs import in_words, runs


class CellState:
    """Who holds which cell at which position. `apply` returns the contradictions of one delta, each told once."""

    def __init__(self) -> None:
        self.position: dict[int, int] = {}  # cell -> position, used cells only
        self.holders: dict[int, set[str]] = {}  # cell -> request ids, used cells only
        self.cells_of: dict[str, set[int]] = {}  # request id -> its cells
        self.num_attended = 0
        self.head: int | None = None
        self._num_miscounted = 0  # used by the deltas, less what the engine counts

    def apply(self, delta: CellDelta) -> list[Finding]:
        found: list[Finding] = []
        emptied = self._free(delta, found)
        unwritten = self._share(delta)
        # Only now: a cell that one request frees and another shares in the same delta keeps its KV.
        for cell in emptied:
            if not self.holders[cell]:
                del self.holders[cell], self.position[cell]
        self._write(delta, found)
        for request_id, cells in unwritten.items():
            self._share_written(request_id, cells, found)
        self.num_attended, self.head = delta.num_attended, delta.head
        self._count(delta, found)
        return found

    def snapshot(self, num_cells: int) -> CellDelta:
        """This state as a change of an empty cache: the first holder of a cell writes it, the others share it."""
        written: dict[str, tuple[tuple[int, int, int], ...]] = {}
        shared: dict[str, tuple[tuple[int, int], ...]] = {}
        first_holder = {cell: min(who) for cell, who in self.holders.items()}
        for request_id in sorted(self.cells_of):
            cells = sorted(self.cells_of[request_id])
            if mine := [c for c in cells if first_holder[c] == request_id]:
                written[request_id] = tuple(self._runs_with_positions(mine))
            if also := [c for c in cells if first_holder[c] != request_id]:
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
            last = cells[i - 1]
            if i == len(cells) or cells[i] != last + 1 or self.position[cells[i]] != self.position[last] + 1:
                yield cells[start], self.position[cells[start]], i - start
                start = i

    def _free(self, delta: CellDelta, found: list[Finding]) -> set[int]:
        """Cells whose last holder may have left."""
        touched: set[int] = set()
        for request_id, freed in delta.freed.items():
            held = self.cells_of.get(request_id, set())
            strange = []
            for cell in _cells(freed, delta.num_cells, request_id, found):
                if cell in held:
                    held.discard(cell)
                    self.holders[cell].discard(request_id)
                    touched.add(cell)
                else:
                    strange.append(cell)
            if not held:
                self.cells_of.pop(request_id, None)
            if strange:
                found.append(Finding("kv", f"{request_id} frees {in_words('cell', strange)}, which it does not hold"))
        return touched

    def _share(self, delta: CellDelta) -> dict[str, list[int]]:
        """The cells that are still empty: in a snapshot, the same delta writes them."""
        empty: dict[str, list[int]] = {}
        for request_id, shared in delta.shared.items():
            for cell in _cells(shared, delta.num_cells, request_id, []):
                if cell in self.position:
                    self._hold(cell, request_id)
                else:
                    empty.setdefault(request_id, []).append(cell)
        return empty

    def _share_written(self, request_id: str, cells: list[int], found: list[Finding]) -> None:
        empty = [cell for cell in cells if cell not in self.position]
        for cell in cells:
            if cell in self.position:
                self._hold(cell, request_id)
        if empty:
            be = "is" if len(empty) == 1 else "are"
            found.append(Finding("kv", f"{request_id} shares {in_words('cell', empty)}, which {be} empty"))

    def _write(self, delta: CellDelta, found: list[Finding]) -> None:
        for request_id, written in delta.written.items():
            overwritten = []
            for first, position, length in written:
                for cell in _cells([(first, length)], delta.num_cells, request_id, found):
                    if cell in self.position:
                        overwritten.append(cell)
                    self.position[cell] = position + cell - first
                    self._hold(cell, request_id)
            if overwritten:
                others = sorted(set().union(*(self.holders[cell] for cell in overwritten)) - {request_id})
                by = f"which {', '.join(others[:4])} held" if others else "which it held already"
                found.append(Finding("kv", f"{request_id} writes {in_words('cell', overwritten)}, {by}"))

    def _hold(self, cell: int, request_id: str) -> None:
        self.holders.setdefault(cell, set()).add(request_id)
        self.cells_of.setdefault(request_id, set()).add(cell)

    def _count(self, delta: CellDelta, found: list[Finding]) -> None:
        num_miscounted = len(self.position) - delta.num_used
        if num_miscounted not in (0, self._num_miscounted):
            text = f"the deltas leave {len(self.position)} cells used, the engine counts {delta.num_used}"
            found.append(Finding("total", text))
        self._num_miscounted = num_miscounted
        if delta.num_used > delta.num_cells:
            found.append(Finding("total", f"{delta.num_used} cells are used, the cache has {delta.num_cells}"))


def _cells(
    some_runs: Iterable[tuple[int, int]], num_cells: int, request_id: str, found: list[Finding]
) -> Iterator[int]:
    """The cells of runs, as far as the cache goes."""
    for first, length in some_runs:
        if first + length > num_cells:
            text = f"{request_id} names cell {first + length - 1}, the cache has {num_cells}"
            found.append(Finding("kv", text))
        yield from range(first, min(first + length, num_cells))
