"""Whether the deltas of llama.cpp's cells agree with themselves and with what was scheduled.

This file must not know blocks: block_checks.py is its twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmlab.trace.cell_state import CellState
from llmlab.trace.lifecycle import Advance, Lifecycles
from llmlab.trace.prefixes import Prefixes
from llmlab.trace.records import CellDelta, Header, KvDelta, Step
from llmlab.trace.rules import Finding


class CellChecks:
    """Follows the cells through a trace."""

    def __init__(self, header: Header, lifecycles: Lifecycles) -> None:
        self._lifecycles = lifecycles
        self._state = CellState()
        self._prefixes = Prefixes(lifecycles.lives)
        self._num_cells = header.num_cells

    def begin(self, delta: KvDelta) -> list[Finding]:
        """The cache before the first step, as a change of an empty one."""
        return self._state.apply(delta) if isinstance(delta, CellDelta) else []

    def step(self, step: Step) -> Iterator[Finding]:
        """After Lifecycles.step of the same step. A step without a delta says nothing about KV."""
        delta = step.kv
        if delta is None:
            return
        if not isinstance(delta, CellDelta):
            yield Finding("kv", "a delta of blocks in a trace of cells")
            return
        if delta.num_cells != self._num_cells and self._num_cells is not None:
            yield Finding("total", f"the cache has {delta.num_cells} cells, before it had {self._num_cells}")
        self._num_cells = delta.num_cells
        yield from self._check_sharing(delta, step)
        yield from self._state.apply(delta)
        advances = {advance.request_id: advance for advance in self._lifecycles.advances}
        yield from self._check_writers(delta, step, advances)
        for advance in advances.values():
            yield from self._check_length(advance, advance.request_id in step.finished)

    def _check_sharing(self, delta: CellDelta, step: Step) -> Iterator[Finding]:
        """Before the delta is applied: a cell may change hands in it."""
        for request_id, shared in delta.shared.items():
            life = self._lifecycles.lives.get(request_id)
            if life is None:
                yield Finding("request", f"{request_id} shares cells, but has no request record")
            elif life.ended and request_id not in step.finished:
                yield Finding("end", f"{request_id} shares cells, it ended {life.ended}")
            different = self._different_cells(request_id, shared, delta.num_cells)
            first = min(different, default=None)
            if first is not None:
                position, cell, holder = first
                text = f"{request_id} shares cell {cell} of {holder}, but their tokens differ up to position {position}"
                yield Finding("prefix", text)

    def _different_cells(
        self, request_id: str, shared: Iterable[tuple[int, int]], num_cells: int
    ) -> Iterator[tuple[int, int, str]]:
        for first, length in shared:
            for cell in range(first, min(first + length, num_cells)):
                # One holder stands for all: each was compared when it came.
                holder = next((r for r in self._state.holders.get(cell, ()) if r != request_id), None)
                if holder is not None and self._prefixes.differ(request_id, holder, self._state.position[cell]):
                    yield self._state.position[cell], cell, holder

    def _check_writers(self, delta: CellDelta, step: Step, advances: dict[str, Advance]) -> Iterator[Finding]:
        scheduled = {row.request_id for row in step.scheduled}
        for request_id, written in delta.written.items():
            if request_id not in scheduled:
                yield Finding("kv", f"cells are written for {request_id}, which was not scheduled")
                continue
            if request_id not in advances:
                continue
            expected = advances[request_id].num_computed_before
            for first, position, length in sorted(written, key=lambda run: run[1]):
                if position != expected:
                    text = f"cell {first} is written for {request_id} at position {position}, expected {expected}"
                    yield Finding("kv", text)
                    break
                expected += length

    def _check_length(self, advance: Advance, has_ended: bool) -> Iterator[Finding]:
        name, cells = advance.request_id, self._state.cells_of.get(advance.request_id, set())
        if has_ended and not cells:
            return
        if len(cells) != advance.num_computed:
            yield Finding(
                "kv_length", f"{name} holds {len(cells)} cells, its computed tokens are {advance.num_computed}"
            )
        elif advance.is_admission:
            # From here on each step adds the next positions, so looking once is enough.
            positions = sorted(self._state.position[cell] for cell in cells)
            wrong = next((i for i, position in enumerate(positions) if position != i), None)
            if wrong is not None:
                is_double = positions[wrong] < wrong
                what = f"two cells at position {positions[wrong]}" if is_double else f"no cell at position {wrong}"
                yield Finding("kv_length", f"{name} holds {what}")
