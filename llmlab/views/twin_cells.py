"""The frozen picture of llama.cpp's cells, with the geometry of static/kv_cells_geometry.js.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math

from llmlab.views import twin_paper as ink
from llmlab.views.kv_now import CellsNow
from llmlab.views.story import Story
from llmlab.views.twin_overview import Overview
from llmlab.views.twin_paper import BG, GHOST, INK, INK2, INK3, SUB, Paper
from llmlab.views.twin_words import number

LABEL_CELLS, MOST_CELLS = 4096, 16384
WINDOW_ROWS = 8


class CellsPicture:
    """The grid of cells, as far as anything was read; of very many an overview and a window of the grid."""

    def __init__(self, paper: Paper, story: Story, state: CellsNow, x: float, y: float, width: float) -> None:
        self.paper, self.story, self.state, self.x, self.y = paper, story, state, x, y
        self.count, self.width = story.head["num_cells"] or 0, width
        self.is_small = LABEL_CELLS < self.count <= MOST_CELLS
        self.columns = min(128 if self.is_small else 64, max(1, self.count))
        self.wide = min(36.0, (width - 50) / self.columns)
        self.high = 8 if self.is_small else max(20.0, min(26.0, self.wide))
        self.pitch = self.high + (2 if self.is_small else 6)
        self.left, self.top = x + 34, y + 26
        reach = max(state.attended, state.end)
        # rows that nothing reads are cut: a picture is no place for a thousand empty rows
        self.rows = min(math.ceil(self.count / self.columns), max(16, math.ceil(reach / self.columns) + 2), 100)
        self.first = 0
        self.overview: Overview | None = None
        if self.count > MOST_CELLS:
            self.rows, self.first = WINDOW_ROWS, self._window()
            self.overview = Overview.fit(self.count, self.left, self.top, width - 50)
            self.top = self.overview.bottom + 52

    def draw(self) -> float:
        if self.overview is not None:
            self._draw_overview(self.overview)
        self._ground()
        self._empty()
        for first, position, length, holders in self.state.runs():
            self._capsule(first, position, length, holders)
        self._written()
        self._words()
        bottom = self.top + self.rows * self.pitch + 22
        return self.paper.legend(self._legend(), self.x, bottom, self.width)

    def _owner(self, request: int) -> str:
        colour = ink.owner(request, len(self.story.requests), self.story.others)
        return colour if request in self.state.tokens else ink.mix(colour, BG, 0.7)  # kept for sharing only

    def _corner(self, cell: int) -> tuple[float, float]:
        row, column = divmod(cell - self.first, self.columns)
        return self.left + column * self.wide, self.top + row * self.pitch

    @property
    def _last(self) -> int:
        """The cell after the last one that is shown."""
        return min(self.count, self.first + self.rows * self.columns)

    def _window(self) -> int:
        """Its first cell: what was written in this step, or comes next, stands in a middle row."""
        row = min(self.state.written, default=self.state.ring_head or 0) // self.columns - WINDOW_ROWS // 2
        return max(0, min(math.ceil(self.count / self.columns) - WINDOW_ROWS, row)) * self.columns

    def _draw_overview(self, overview: Overview) -> None:
        state, end = self.state, self.state.end

        def colour(cells: range, is_odd: bool) -> str:
            used = next((cell for cell in cells if cell in state.holders), None)
            if used is not None:
                holders = state.holders[used]
                return self._owner(next((r for r in holders if r in state.tokens), holders[0]))
            if cells.start >= state.attended:
                return BG
            return GHOST if cells.start < end and is_odd else SUB  # a hole is a checker, not a grey

        overview.draw(self.paper, colour)
        overview.frame(self.paper, self.first, self._last - 1)
        dot = "a dot is one cell" if overview.each == 1 else f"one dot for {overview.each} cells; used wins over empty"
        words = f"above: {dot}; below: cells {number(self.first)}–{number(self._last - 1)}"
        if state.attended:
            words += f"; attention reads cells 0–{number(state.attended - 1)}"
        self.paper.text(words, self.left, overview.bottom + 20, colour=INK2)

    def _ground(self) -> None:
        paper, read = self.paper, max(0, min(self._last, self.state.attended) - self.first)
        full, rest = divmod(read, self.columns)
        paper.box(self.left - 4, self.top - 4, self.columns * self.wide + 8, full * self.pitch + 2 * bool(full), SUB)
        if rest:
            paper.box(self.left - 4, self.top - 4 + full * self.pitch, rest * self.wide + 4, self.pitch + 2, SUB)
        for row in range(0, self.rows, 8 if self.is_small else 1):
            y = self.top + row * self.pitch + self.high / 2 + 4
            paper.text(str(self.first + row * self.columns), self.left - 9, y, size=11, align="right", colour=INK3)

    def _empty(self) -> None:
        paper, end = self.paper, self.state.end
        for cell in range(self.first, self._last):
            if cell in self.state.holders:
                continue
            x, y = self._corner(cell)
            if cell >= self.state.attended:
                paper.box(x + self.wide / 2 - 0.75, y + self.high / 2 - 0.75, 1.5, 1.5, GHOST)
                continue
            paper.box(x, y, self.wide, self.high, None, GHOST, thick=0.5)
            if cell < end:
                paper.line([(x + 1.5, y + self.high - 2.5), (x + self.wide - 1.5, y + 2.5)], GHOST)

    def _capsule(self, first: int, position: int, length: int, holders: list[int]) -> None:
        """One box for each row that the run stands in."""
        cell, end = max(first, self.first), min(first + length, self._last)
        while cell < end:
            part = min(end, cell + self.columns - cell % self.columns) - cell
            self._part(cell, part, position + cell - first, holders)
            cell += part

    def _part(self, cell: int, length: int, position: int, holders: list[int]) -> None:
        paper, (x, y), w, h = self.paper, self._corner(cell), length * self.wide, self.high
        most = max(1, int(h // 3))
        shown = [self._owner(r) for r in (holders if len(holders) <= most else holders[: most - 1])]
        shown += [INK2] * (len(holders) > most)
        for i, colour in enumerate(shown):
            paper.box(
                x + 0.4, y + i * h / len(shown), w - 0.8, h / len(shown) + 0.5, colour, radius=3 * (len(shown) == 1)
            )
        paper.box(x, y, w, h, None, INK if len(holders) > 1 else ink.edge(shown[0]), radius=3)
        for i in range(1, length if not self.is_small else 0):
            seam = ink.mix(shown[0], BG, 0.35)
            if len(shown) == 1:
                paper.line([(x + i * self.wide, y + 1), (x + i * self.wide, y + h - 2)], seam, 0.5)
        if not self.is_small:
            self._label(x, y, w, position, length, holders, shown)

    def _label(self, x: float, y: float, w: float, position: int, n: int, holders: list[int], shown: list[str]) -> None:
        paper, where = self.paper, f"{position}–{position + n - 1}" if n > 1 else str(position)
        is_shared = len(holders) > 1
        if is_shared:
            choices = [f"×{len(holders)} sequences, positions {where}", f"×{len(holders)}"]
        else:
            name = self.story.name(holders[0])
            kept = [] if holders[0] in self.state.tokens else [f"{name} kept {where}", f"{name} kept"]
            choices = kept or [f"{name} {where}", name]
        for words in choices:
            wide = paper.text_width(words, size=11, bold=True)
            if wide + (12 if is_shared else 4) > w:
                continue
            at, colour = x + min(5, (w - wide) / 2), ink.text_on(shown[0])
            if is_shared:
                paper.box(x + 3, y + self.high / 2 - 7.5, wide + 7, 15, BG, radius=3)
                at, colour = x + 6.5, INK
            paper.text(words, at, y + self.high / 2 + 4, size=11, bold=True, colour=colour)
            return

    def _written(self) -> None:
        for cell in self.state.written:
            if cell in self.state.holders and self.first <= cell < self._last:
                x, y = self._corner(cell)
                dot = 2 if self.is_small else 3
                colour = ink.text_on(self._owner(self.state.holders[cell][-1]))
                self.paper.box(x + (self.wide - dot) / 2, y + self.high - dot - 2, dot, dot, colour)

    def _words(self) -> None:
        paper, state = self.paper, self.state
        if state.ring_head is not None:
            words = f"ring head at cell {state.ring_head}: the search for free cells starts here"
            paper.polygon([(self.left, self.y + 4), (self.left + 9, self.y + 4), (self.left + 4.5, self.y + 11)], INK)
            paper.text(words, self.left + 16, self.y + 12, size=12, bold=True)
            if self.first <= state.ring_head < self._last:
                x, y = self._corner(state.ring_head)
                x += self.wide / 2
                paper.polygon([(x - 5, y - 7), (x + 5, y - 7), (x, y - 0.5)], INK)
        read = min(self._last, state.attended) - self.first
        if read <= 0:
            return
        y = self.top + math.ceil(read / self.columns) * self.pitch - 3
        right = self.left + self.columns * self.wide
        paper.line([(self.left - 4, y), (right + 4, y)], INK, 1.5)
        words = f"attention reads cells 0–{number(state.attended - 1)}"
        wide = paper.text_width(words, bold=True)
        paper.box(right - wide - 5, y + 3, wide + 5, 14, BG)  # not on the dots of what is not read
        paper.text(words, right, y + 14, bold=True, align="right")

    def _legend(self) -> list[ink.LegendItem]:
        paper, colour = self.paper, ink.OWNERS[0]

        def shared(x: float, y: float) -> None:
            for i in range(3):
                paper.box(x, y + 1 + 4 * i, 24, 4, ink.OWNERS[i])
            paper.box(x, y + 1, 24, 12, None, INK)

        def kept(x: float, y: float) -> None:
            paper.box(x, y + 1, 24, 12, ink.mix(colour, BG, 0.7), ink.edge(ink.mix(colour, BG, 0.7)), radius=3)

        def written(x: float, y: float) -> None:
            paper.box(x, y, 10, 14, colour, radius=2)
            paper.box(x + 3.5, y + 9, 3, 3, BG)

        def hole(x: float, y: float) -> None:
            paper.box(x, y + 1, 10, 12, None, GHOST)
            paper.line([(x + 1.5, y + 11), (x + 8.5, y + 3)], GHOST)

        items: list[ink.LegendItem] = [
            ("run of one sequence", 24, lambda x, y: paper.box(x, y + 1, 24, 12, colour, ink.edge(colour), radius=3)),
            ("shared cells, one band a sequence", 24, shared),
            ("kept for prefix sharing after its request ended", 24, kept),
            ("written this step", 10, written),
            ("hole: masked, still read", 10, hole),
            ("padding to a multiple of 256", 10, lambda x, y: paper.box(x, y + 1, 10, 12, None, GHOST)),
            ("not read", 8, lambda x, y: paper.box(x + 3, y + 6, 2, 2, GHOST)),
        ]
        if not self.story.head["prefix_caching"]:
            items = [item for item in items if item[2] not in (shared, kept)]
        if self.story.others:
            items.append(ink.others_sign(paper))
        return items
