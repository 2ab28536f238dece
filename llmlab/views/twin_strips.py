"""What stands above and below the rows of a frozen timeline: tokens of each step, queue, KV memory, x axis, cursor.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llmlab.views import twin_paper as ink
from llmlab.views.story import Story
from llmlab.views.twin_paper import BG, GHOST, INK, INK2, INK3, LINE, WARN, Paper
from llmlab.views.twin_phases import Record, rows_of
from llmlab.views.twin_words import number

TOP, BUDGET, QUEUE, KV = 72, 40, 26, 34
MOST_PLOT = 420


class Strips:
    """Where things stand in the timeline, and all of it but its rows."""

    def __init__(self, paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> None:
        self.paper, self.story, self.index, self.x, self.y, self.width = paper, story, index, x, y, width
        self.rows = rows_of(story)
        count = len(self.rows)
        self.is_pixels = count > 48
        pixels = max(1, min(5, MOST_PLOT // max(1, count)))
        self.row_height = pixels if self.is_pixels else 22 if count <= 16 else 12
        self.num_shown = min(count, MOST_PLOT) if self.is_pixels else count
        self.left = x + (64 if self.is_pixels else 138)
        self.plot = width - (64 if self.is_pixels else 138) - (14 if self.is_pixels else 54)
        self.right, self.top = self.left + self.plot, y + TOP
        self.bottom = self.top + self.num_shown * self.row_height
        self.budget = story.head["token_budget"] or max((sum(s["u"]) for s in story.steps), default=1) or 1
        self.slots = self._slots()

    # ---- the x axis

    def _at(self, step: float) -> float:
        return self.left + round(self.plot * step / max(1, len(self.story.steps)))

    def _slots(self) -> list[tuple[float, float, int, int]]:
        """Places along the axis (x0, x1, first step, after the last): a step each, or a pixel with the steps in it."""
        n = len(self.story.steps)
        if n <= self.plot:
            return [(self._at(i), max(self._at(i) + 1, self._at(i + 1)), i, i + 1) for i in range(n)]
        columns = int(self.plot)
        edges = [round(n * c / columns) for c in range(columns + 1)]
        return [(self.left + c, self.left + c + 1, edges[c], edges[c + 1]) for c in range(columns)]

    def _axis(self, y: float) -> None:
        paper, steps = self.paper, self.story.steps
        paper.text("step", self.left - 8, y + 14, size=11, align="right", colour=INK2)
        power = 10.0 ** math.floor(math.log10(max(1, len(steps)) / (self.plot / 72)))
        every = max(
            1, int(next(n * power for n in (1, 2, 5, 10) if n * power >= 0.999 * len(steps) / (self.plot / 72)))
        )
        for i, record in enumerate(steps):
            if record["n"] % every == 0:
                paper.box(self._at(i + 0.5), y + 1, 1, 4, LINE)
                paper.text(number(record["n"]), self._at(i + 0.5), y + 14, size=11, align="center", colour=INK2)

    def _cursor(self, bottom: float) -> None:
        """The step of the twin; at the end there is no need to say which."""
        if self.index == len(self.story.steps) - 1:
            return
        x0, x1 = self._at(self.index), max(self._at(self.index) + 2, self._at(self.index + 1))
        self.paper.box(x0, self.y + 8, x1 - x0, bottom - self.y - 8, None, INK)
        words = f"step {self.story.steps[self.index]['n']}"
        wide = self.paper.text_width(words, bold=True) + 12
        left = min(max(self.left, (x0 + x1 - wide) / 2), self.right - wide)
        self.paper.box(left, self.y - 6, wide, 18, INK, radius=3)
        self.paper.text(words, left + wide / 2, self.y + 7, bold=True, align="center", colour=BG)

    # ---- strips

    def _label(self, lines: Sequence[str], y: float) -> None:
        for k, words in enumerate(lines):
            self.paper.text(words, self.left - 8, y + 11 + 13 * k, size=11.5, align="right", colour=INK2)

    def _budget_strip(self) -> None:
        paper, y = self.paper, self.top - 20 - BUDGET
        self._label(("tokens", "per step"), y)
        for x0, x1, first, last in self.slots:
            fullest = max((record["u"] for record in self.story.steps[first:last]), key=sum, default=(0, 0, 0))
            prefill, decode, recompute = fullest
            wide, bottom = max(1, x1 - x0 - (x1 - x0 > 4)), y + BUDGET
            for tokens, colour in ((decode, GHOST), (prefill, INK2), (recompute, None)):
                high = min(bottom - y, max(1, BUDGET * tokens / self.budget) if tokens else 0)
                if colour is not None:
                    paper.box(x0, bottom - high, wide, high, colour)
                elif high:
                    recompute_box(paper, x0, bottom - high, wide, high)
                bottom -= high
        paper.box(self.left, y + BUDGET, self.plot, 1, LINE)
        limit = self.story.head["token_budget"]
        if limit:
            paper.dashes(self.left, self.right, y - 0.5, INK, 5, 3)
        words = f"{'budget' if limit else 'at most'} {number(self.budget)}"
        paper.text(words, self.right, y - 4, size=11.5, align="right", colour=INK2)

    def _area(
        self, of: Callable[[Record], float | None], most: float, y: float, h: float, fill: Callable[..., None]
    ) -> None:
        """A filled step for each slot: fill(x, y, w, h)."""
        for x0, x1, first, last in self.slots:
            values = [v for v in map(of, self.story.steps[first:last]) if v is not None]
            high = h * min(1.0, max(values, default=0) / most) if most else 0
            if high:
                fill(x0, y + h - high, x1 - x0, high)

    def _queue_strip(self, y: float) -> float:
        paper, most = self.paper, max((record["nw"] for record in self.story.steps), default=0)
        self._label(("queue", f"max {number(most)}"), y)

        def fill(x: float, top: float, w: float, h: float) -> None:
            paper.box(x, top, w, h, ink.mix(INK3, BG, 0.55))
            paper.box(x, top, w, 1, INK2)

        if most:
            self._area(lambda record: record["nw"], most, y, QUEUE, fill)
        else:
            paper.text("no request ever waited", self.left + 6, y + 17, size=11.5, colour=INK2)
        paper.box(self.left, y + QUEUE, self.plot, 1, LINE)
        return y + QUEUE

    def _kv_strip(self, y: float) -> float:
        head, paper = self.story.head, self.paper
        if head["kind"] == "none":
            return y
        y, is_cells = y + 12, head["kind"] == "cells"
        total = head["num_cells"] if is_cells else head["num_blocks"]
        used = "used" if is_cells else "held"

        def both(record: Record) -> float | None:
            held = record["fig"].get(used)
            return None if held is None else held + (record["fig"].get("cached") or 0)

        most = max((both(record) or 0 for record in self.story.steps), default=0)
        end = _axis_end(most, total)
        self._label((f"KV {'cells' if is_cells else 'blocks'}", number(total) if total else ""), y)
        self._area(both, end, y, KV, lambda x, top, w, h: paper.hatch(x, top, w, h, GHOST, 4, 1))
        self._area(lambda s: s["fig"].get(used), end, y, KV, lambda x, top, w, h: paper.box(x, top, w, h, INK2))
        paper.box(self.left, y + KV, self.plot, 1, LINE)
        if end == total:
            paper.dashes(self.left, self.right, y - 0.5, INK, 5, 3)
        elif total:
            words = f"axis cut at {number(end)} of {number(total)}"
            paper.text(words, self.left + 6, y + 8, size=11, colour=INK2, halo=BG)
        return y + KV


def recompute_box(paper: Paper, x: float, y: float, w: float, h: float) -> None:
    """Hatched; full where there is no room for lines."""
    paper.box(x, y, w, h, WARN if w < 4 else BG)
    if w >= 4:
        paper.hatch(x, y, w, h, WARN, 4, 1.6)
        paper.box(x, y, w, h, None, WARN)


def _axis_end(most: float, total: int | None) -> float:
    """All of the memory, or a round number above `most` when under a quarter was ever used."""
    if not most or not total or most >= total / 4:
        return total or max(1, most)
    power = 10 ** math.floor(math.log10(1.1 * most))
    return math.ceil(next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= 1.1 * most))
