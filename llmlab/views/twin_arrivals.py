"""The frozen picture of what arrived, and when, of an engine that is seen from outside; as static/arrivals.js draws it.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from llmlab.views import twin_paper as ink
from llmlab.views.story import Story
from llmlab.views.twin_paper import BG, INK, INK2, INK3, LINE, SUB, LegendItem, Paper
from llmlab.views.twin_phases import ENDS
from llmlab.views.twin_words import begin_s, number

TOP, LEFT, RIGHT, AXIS, MOST_PLOT = 22, 138, 54, 20, 420


class Arrival(NamedTuple):
    t_s: float
    num_tokens: int


@dataclass(slots=True)
class ArrivalRow:
    """One request: when it was sent, what came, and how it ended as (seconds, kind, tokens)."""

    sent_s: float | None
    came: list[Arrival] = field(default_factory=list)
    end: tuple[float, str, int] | None = None


def arrival_rows(story: Story, index: int) -> list[ArrivalRow]:
    """All requests up to step `index`."""
    rows = [ArrivalRow(request["arrival"]) for request in story.requests]
    for record in story.steps[: index + 1]:
        for request, num_tokens in record.get("in", ()):
            rows[request].came.append(Arrival(record["t"], num_tokens))
        for request, reason, num_tokens in record["fin"]:
            rows[request].end = (record["t"], ENDS.get(reason, "aborted"), num_tokens)
    return rows


def draw_arrivals(paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> float:
    """The picture and its legend; where it ends."""
    return _Arrivals(paper, story, index, x, y, width).draw()


class _Arrivals:
    def __init__(self, paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> None:
        self.paper, self.story, self.x, self.width = paper, story, x, width
        self.rows = arrival_rows(story, index)
        count = len(self.rows)
        self.row_height = 22 if count <= 16 else 12 if count <= 48 else max(2, MOST_PLOT // count)
        self.num_shown = count if count <= 48 else min(count, MOST_PLOT // self.row_height)
        self.left, self.plot = x + LEFT, width - LEFT - RIGHT
        self.top = y + TOP
        self.bottom = self.top + self.num_shown * self.row_height
        self.first_s = begin_s(story)
        last_s = story.steps[-1]["t"]
        self.span_s = last_s - self.first_s if last_s > self.first_s else 1.0

    def draw(self) -> float:
        self.paper.text("prompt", self.left - 14, self.top - 6, size=11, align="right", colour=INK2)
        for r in range(self.num_shown):
            self._row(r, self.rows[r])
        self._axis()
        bottom = self.bottom + AXIS
        if hidden := len(self.rows) - self.num_shown:
            words = f"{number(hidden)} more request{'' if hidden == 1 else 's'} not shown."
            self.paper.text(words, self.left, bottom + 10, colour=INK2)
            bottom += 18
        return self.paper.legend(self._legend(), self.x, bottom + 8, self.width)

    def _at(self, t_s: float) -> float:
        return self.left + self.plot * (t_s - self.first_s) / self.span_s

    def _row(self, r: int, row: ArrivalRow) -> None:
        paper, y, h = self.paper, self.top + r * self.row_height, self.row_height
        middle, colour = y + h / 2, ink.owner(r, len(self.rows), self.story.others)
        paper.box(self.left, y, self.plot, h, BG if r % 2 else SUB)
        if h >= 12:
            self._name(r, middle, colour)
        last_s = self.first_s + self.span_s
        first_s = row.came[0].t_s if row.came else row.end[0] if row.end else last_s
        if row.sent_s is not None:
            paper.dashes(self._at(row.sent_s), self._at(first_s) - 2, middle, INK3, 1.5, 3, 1.5)
        if row.came:
            wide = self._at(row.came[-1].t_s) - self._at(first_s)
            paper.box(self._at(first_s), middle - 0.75, wide, 1.5, ink.mix(colour, BG, 0.55))
        for at, num_tokens in self._ticks(row):
            high = max(2, (0.82 if num_tokens > 1 else 0.5) * h)
            # a tick has no outline, and some owners are light
            paper.box(at - 0.9, middle - high / 2, 1.8, high, ink.edge(colour))
        if row.end is not None:
            self._end(row.end, middle)

    def _ticks(self, row: ArrivalRow) -> list[tuple[float, int]]:
        """[px, tokens]: what came less than 2 px apart is one."""
        ticks: list[tuple[float, int]] = []
        for t_s, num_tokens in row.came:
            at = self._at(t_s)
            if ticks and at - ticks[-1][0] < 2:
                ticks[-1] = (ticks[-1][0], ticks[-1][1] + num_tokens)
            else:
                ticks.append((at, num_tokens))
        return ticks

    def _name(self, r: int, middle: float, colour: str) -> None:
        side, size = min(12, self.row_height - 3), 13 if self.row_height >= 22 else 11
        self.paper.box(self.x + 8, middle - side / 2, side, side, colour, ink.edge(colour))
        self.paper.text(self.story.name(r), self.x + 26, middle + size / 3, size=size, bold=True)
        words = number(self.story.requests[r]["prompt"] or None)
        self.paper.text(words, self.left - 14, middle + 4, size=min(11.5, size), align="right", colour=INK2)

    def _end(self, end: tuple[float, str, int], middle: float) -> None:
        t_s, kind, num_tokens = end
        at, high = self._at(t_s) + 3, min(12, self.row_height)
        if kind == "finished":
            self.paper.box(at - 2, middle - high / 2, 4, high, INK)
        else:
            self.paper.mark(kind, at, middle)
        if self.row_height >= 22:
            self.paper.text(str(num_tokens), at + 6, middle + 4, size=11.5, colour=INK2, halo=BG)

    def _axis(self) -> None:
        wanted = self.span_s / max(1.0, self.plot / 72)
        power = 10.0 ** math.floor(math.log10(wanted))
        every = next(n * power for n in (1, 2, 5, 10) if n * power >= 0.999 * wanted)
        digits = max(0, -math.floor(math.log10(every) + 1e-9))
        self.paper.box(self.left, self.bottom, self.plot, 1, LINE)
        self.paper.text("seconds", self.left - 14, self.bottom + 15, size=11, align="right", colour=INK2)
        for k in range(math.floor(self.span_s / every + 1e-9) + 1):
            at = self._at(self.first_s + k * every)
            self.paper.box(at, self.bottom, 1, 4, LINE)
            self.paper.text(f"{k * every:.{digits}f}", at, self.bottom + 15, size=11, align="center", colour=INK2)

    def _legend(self) -> list[LegendItem]:
        paper, colour = self.paper, ink.edge(ink.OWNERS[0])

        def broken(x: float, y: float) -> None:
            paper.mark("aborted", x + 5, y + 7)
            paper.mark("failed", x + 17, y + 7)

        return [
            ("sent, nothing came yet", 26, lambda x, y: paper.dashes(x, x + 26, y + 7, INK3, 1.5, 3, 1.5)),
            ("a token arrived", 10, lambda x, y: paper.box(x + 4, y + 3.5, 1.8, 7, colour)),
            ("several at once", 10, lambda x, y: paper.box(x + 4, y + 0.5, 1.8, 13, colour)),
            ("finished, tokens", 4, lambda x, y: paper.box(x, y + 1, 4, 12, INK)),
            ("stopped, failed", 22, broken),
        ]
