"""The frozen picture of the batching timeline, with the geometry of static/timeline_geometry.js; steps on the x axis.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmlab.views import twin_paper as ink
from llmlab.views.story import Story
from llmlab.views.twin_paper import BG, GHOST, HIT, INK, INK2, INK3, LINE, SUB, WARN, LegendItem, Paper
from llmlab.views.twin_phases import DECODE, GROW, LOST, NAMES, NONE, PREFILL, RECOMPUTE, WAITING, Row
from llmlab.views.twin_strips import Strips, recompute_box

AXIS = 18
GAP_EVERY = 3  # px in pixels of recompute: one of three is a gap


def draw_timeline(paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> float:
    """The picture and its legend; where it ends."""
    return _Rows(paper, story, index, x, y, width).draw()


class _Rows(Strips):
    """The rows of the requests: shapes, or pixels of more than 48."""

    def draw(self) -> float:
        self._budget_strip()
        if self.is_pixels:
            self._pixel_rows()
        else:
            self._shape_rows()
        bottom = self._kv_strip(self._queue_strip(self.bottom + 14))
        self._axis(bottom)
        self._cursor(bottom)
        return self.paper.legend(self._legend(), self.x, bottom + AXIS + 8, self.width)

    # ---- rows

    def _shape_rows(self) -> None:
        paper = self.paper
        paper.text("prompt", self.left - 44, self.top - 4, size=11, align="right", colour=INK2)
        if self.story.head["prefix_caching"]:
            paper.text("hit", self.left - 13, self.top - 4, size=11, align="right", colour=HIT)
        for r, row in enumerate(self.rows):
            y = self.top + r * self.row_height
            paper.box(self.left, y, self.plot, self.row_height, BG if r % 2 else SUB)
            self._gutter(r, row, y + self.row_height / 2)
            self._pieces(row, y, ink.owner(r, len(self.rows), self.story.others))
            for mark in row.marks:
                self._mark(row, mark, y + self.row_height / 2, BG if r % 2 else SUB)

    def _gutter(self, r: int, row: Row, middle: float) -> None:
        paper, colour = self.paper, ink.owner(r, len(self.rows), self.story.others)
        side, size = min(12, self.row_height - 3), 13 if self.row_height >= 22 else 11
        paper.box(self.x + 8, middle - side / 2, side, side, colour, ink.edge(colour))
        paper.text(self.story.name(r), self.x + 26, middle + size / 3, size=size, bold=True)
        prompt = self.story.requests[r]["prompt"]
        style = {"size": min(11.5, size), "align": "right"}
        paper.text("–" if prompt is None else str(prompt), self.left - 44, middle + 4, colour=INK2, **style)  # type: ignore[arg-type]
        if row.hit:
            paper.text(str(row.hit), self.left - 13, middle + 4, bold=True, colour=HIT, **style)  # type: ignore[arg-type]

    def _pieces(self, row: Row, y: float, colour: str) -> None:
        """Chunks one by one; waiting and decoding as long as they last."""
        start: tuple[float, int, int] | None = None  # x0, code, first step
        for x0, _, first, last in [*self.slots, (self.right, self.right, 0, 0)]:
            code = max(row.codes[first:last], default=NONE)
            code = DECODE if code == GROW else code
            if start is not None and (start[1] != code or code in (PREFILL, RECOMPUTE)):
                self._piece(row, *start, x0, y, colour)
                start = None
            if start is None and code != NONE:
                start = (x0, code, first)
        if start is not None:
            self._piece(row, *start, self.right, y, colour)

    def _piece(self, row: Row, x0: float, code: int, first: int, x1: float, y: float, colour: str) -> None:
        paper, h = self.paper, self.row_height
        middle = y + h / 2
        if code == WAITING:
            paper.dashes(x0, x1, middle, INK3, 1.5, 3, 1.5)
        elif code == LOST:
            paper.dashes(x0 + 8, x1, middle, WARN, 5, 3, 1.5)
        elif code == DECODE:
            paper.box(x0, middle - 3.5, x1 - x0, 7, colour, ink.edge(colour))
            wide = self.plot / max(1, len(self.story.steps))
            dot = ink.mix(colour, ink.text_on(colour), 0.6)
            for i in range(first, first + round((x1 - x0) / wide) if wide >= 5 else first):
                paper.box(self._at(i + 0.5) - 0.75, middle - 0.75, 1.5, 1.5, dot)
        else:
            wide = max(1, x1 - x0 - 0.6 * (x1 - x0 > 3))
            if code == RECOMPUTE:
                recompute_box(paper, x0, y + 1.5, wide, h - 3)
                return
            level = (h - 3) * min(1, row.tokens.get(first, 1) / self.budget)
            paper.box(x0, y + 1.5, wide, h - 3, ink.tint(colour))
            paper.box(x0, y + h - 1.5 - level, wide, level, colour)
            paper.box(x0, y + 1.5, wide, h - 3, None, ink.edge(colour))

    def _mark(self, row: Row, mark: tuple[int, str, int | None], middle: float, ground: str) -> None:
        paper, (step, kind, n) = self.paper, mark
        x0, x1 = self._at(step), self._at(step + 1)
        if kind == "hit":
            lost_from = step
            while lost_from and row.codes[lost_from - 1] == LOST:
                lost_from -= 1
            is_tight = lost_from < step and x0 - self._at(lost_from) < 22
            # Before the first step: beside its number in the gutter. Just after a preemption: not on its triangle.
            at = x0 + min(8, max(5, (x1 - x0) / 2)) if is_tight else max(self.left - 5, x0 - 7)
            if at > self.left:
                paper.box(at - 6, middle - 5.5, 12, 11, ground)
            paper.mark("hit", at, middle + 0.5)
        elif kind == "preempted":
            paper.mark("preempted", x0 + 4, middle)
        else:
            high = min(12, self.row_height)
            if kind == "finished":
                paper.box(x1 - 1, middle - high / 2, 4, high, INK)
            else:
                paper.mark(kind, x1 + 1, middle)
            if self.row_height >= 22:
                paper.text(str(n), x1 + 7, middle + 4, size=11.5, colour=INK2, halo=ground)

    def _pixel_rows(self) -> None:
        """Each column shows the rarest phase in it."""
        import numpy as np

        colours = [BG if name == "none" else ink.PHASES[name] for name in NAMES]
        greys = [ink.grey_of(c) if code in (PREFILL, GROW, DECODE) else c for code, c in enumerate(colours)]
        columns = int(self.plot)
        codes = np.array([np.frombuffer(row.codes, np.uint8) for row in self.rows[: self.num_shown]])
        rarest = np.maximum.reduceat(codes, [first for _, _, first, _ in self.slots], axis=1)
        of_column = np.zeros((len(codes), columns), np.uint8)
        for slot, (x0, x1, _, _) in enumerate(self.slots):
            of_column[:, int(x0 - self.left) : int(x1 - self.left)] = rarest[:, slot : slot + 1]
        # dashed, as the line of a preempted request is in rows of shapes
        of_column[(of_column == LOST) & (np.arange(columns) % 6 >= 4)] = NONE
        palettes = [greys if r in self.story.others else colours for r in range(self.num_shown)]
        picture = [palette[code] for palette, row in zip(palettes, of_column.tolist(), strict=True) for code in row]
        self.paper.pixels(columns, picture, self.left, self.top, 1, self.row_height)
        self._gaps(of_column == RECOMPUTE)
        self.paper.box(self.left - 1, self.top - 1, columns + 2, self.bottom - self.top + 2, None, LINE)
        every = 50 if len(self.rows) >= 200 else 25
        others, last_y = self.story.others, -math.inf
        for r in range(self.num_shown):
            y = self.top + r * self.row_height
            is_named = r not in others if others else r % every == 0
            if not is_named or y - last_y < 13:
                continue
            last_y = y
            self.paper.text(self.story.name(r), self.left - 6, y + 9, size=11, align="right", colour=INK2)
        if self.num_shown < len(self.rows):
            words = f"{len(self.rows) - self.num_shown} more requests are not shown"
            self.paper.text(words, self.left, self.bottom + 11, size=11, colour=INK2)

    def _gaps(self, is_again: Any) -> None:
        """Lines of paper in recompute, bool [num_shown, columns]: in grey it is as dark as other phases."""
        for r, x in zip(*is_again.nonzero(), strict=True):
            if self.row_height == 1 and not (x and is_again[r, x - 1]):  # a single pixel has no room
                continue
            for y in range(r * self.row_height, (r + 1) * self.row_height):
                if (x + y) % GAP_EVERY == 0:
                    self.paper.box(self.left + x, self.top + y, 1, 1, BG)

    # ---- legend

    def _legend(self) -> list[LegendItem]:
        paper, head, colour = self.paper, self.story.head, ink.OWNERS[0]
        is_preempting = any(record["pre"] for record in self.story.steps)
        if self.is_pixels:
            words = {"grow": "decode, takes a new block", "lost": "waiting after preemption"}
            names = [n for n in NAMES[1:] if is_preempting or n not in ("recompute", "lost")]
            names = [n for n in names if n != "grow" or head["kind"] == "blocks"]
            signs = [(words.get(n, n), 18.0, _swatch(paper, ink.PHASES[n], n)) for n in names]
            grey = ink.grey_of(ink.PHASES["decode"])
            return [*signs, ("of other clients", 18.0, _swatch(paper, grey))] if self.story.others else signs

        def prefill(x: float, y: float) -> None:
            paper.box(x, y, 18, 14, ink.tint(colour), ink.edge(colour))
            paper.box(x + 1, y + 8, 16, 5, colour)

        def preempted(x: float, y: float) -> None:
            paper.mark("preempted", x + 5, y + 7.5)
            paper.dashes(x + 12, x + 28, y + 7, WARN, 5, 3, 1.5)

        def memory(x: float, y: float) -> None:
            paper.box(x, y + 1, 26 if head["kind"] == "cells" else 13, 12, INK2)
            if head["kind"] != "cells":
                paper.hatch(x + 13, y + 1, 13, 12, GHOST, 4, 1)

        share = "share of budget" if head["token_budget"] else "share of the fullest step"
        items: list[LegendItem] = [
            ("waiting", 26, lambda x, y: paper.dashes(x, x + 26, y + 7, INK3, 1.5, 3, 1.5)),
            (f"prefill, fill = {share}", 18, prefill),
            ("decode, one token", 24, lambda x, y: paper.box(x, y + 3.5, 24, 7, colour, ink.edge(colour))),
        ]
        if is_preempting:
            items.append(("recompute", 18, lambda x, y: recompute_box(paper, x, y, 18, 14)))
            items.append(("preempted", 28, preempted))
        if head["prefix_caching"]:
            items.append(("prefix hit", 12, lambda x, y: paper.mark("hit", x + 6, y + 7.5)))
        items.append(("finished, tokens out", 4, lambda x, y: paper.box(x, y + 1, 4, 12, INK)))
        if self.story.others:
            items.append(ink.others_sign(paper))
        if head["kind"] != "none":
            items.append(("cells used" if head["kind"] == "cells" else "held · cached", 26, memory))
        return items


def _swatch(paper: Paper, colour: str, phase: str = "") -> Callable[[float, float], None]:
    def draw(x: float, y: float) -> None:
        for k in range(3) if phase == "lost" else range(1):
            paper.box(x + 6 * k, y + 1, 4 if phase == "lost" else 18, 12, colour)
        for k in range(18 * 12) if phase == "recompute" else ():
            if (k + k // 18) % GAP_EVERY == 0:
                paper.box(x + k % 18, y + 1 + k // 18, 1, 1, BG)

    return draw
