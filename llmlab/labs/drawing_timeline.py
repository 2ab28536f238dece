"""The two timelines of a plan that breaks a rule on paper: yours on the left, expected on the right.

Imported when something is drawn. This file must not know any check.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import MARGIN, SIDE, WIDTH, begin, beside, end
from llmlab.labs.pictures_timeline import LOST, WAITS, Column, Timeline, differing, sides_of
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import LegendItem, Paper

GUTTER, ROW, STRIP = 46, 20, 44
WIDEST = 34
TOP = 78


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = begin(picture, "picture_in")
    wrong, (yours, expected) = set(differing(picture)), sides_of(picture)
    bottom = 0.0
    for x, side in zip(beside(paper), (yours, expected), strict=True):
        bottom = max(bottom, _Side(paper, side, wrong, x).draw())
    last = paper.legend(_legend(paper), MARGIN, bottom + 10, WIDTH - 2 * MARGIN)
    return end(paper, picture, last + 18)


class _Side:
    """One of the two."""

    def __init__(self, paper: Paper, side: Timeline, wrong: set[str], x: float) -> None:
        self.paper, self.side, self.wrong, self.x = paper, side, wrong, x
        self.left, self.wide = x + GUTTER, min(WIDEST, (SIDE - GUTTER) / max(1, len(side.columns)))

    def draw(self) -> float:
        """Where it ends."""
        paper, side = self.paper, self.side
        top = TOP + STRIP + 6
        plot = self.wide * len(side.columns)
        for r, name in enumerate(side.requests):
            y = top + r * ROW
            paper.box(self.left, y, plot, ROW, ink.BG if r % 2 else ink.SUB)
            paper.text(name, self.left - 6, y + 14, align="right", bold=True)
            for i, column in enumerate(side.columns):
                self._cell(column, name, self.left + i * self.wide, y, ink.owner(r, len(side.requests)))
        self._budget()
        bottom = top + len(side.requests) * ROW
        self._axis(bottom)
        if side.num_more:
            paper.text(say("picture_more_wait", count=side.num_more), self.left, bottom + 30, size=12, colour=ink.INK2)
        if side.columns:
            last = self.left + plot - self.wide
            paper.box(last - 1, TOP - 4, self.wide + 2, bottom - TOP + 6, None, ink.WARN, thick=2)
            for name in self.wrong:
                paper.mark("failed", last + self.wide + 7, top + (list(side.requests).index(name) + 0.5) * ROW)
        return bottom + (34 if side.num_more else 16)

    def _cell(self, column: Column, name: str, x: float, y: float, colour: str) -> None:
        paper, middle, sign = self.paper, y + ROW / 2, column.sign(name)
        if sign == WAITS:
            paper.dashes(x + 2, x + self.wide - 2, middle, ink.INK3, 1.5, 3, 1.5)
        elif sign == LOST:
            paper.mark("preempted", x + self.wide / 2, middle)
        elif name in column.shares:
            phase, num_tokens = column.shares[name]
            if phase == "decode":
                paper.box(x + 0.5, middle - 3.5, self.wide - 1, 7, colour, ink.edge(colour))
                return
            if phase == "recompute":
                paper.hatch(x + 0.5, y + 1.5, self.wide - 1, ROW - 3, ink.WARN, 4, 1.6)
                paper.box(x + 0.5, y + 1.5, self.wide - 1, ROW - 3, None, ink.WARN)
            else:
                paper.box(x + 0.5, y + 1.5, self.wide - 1, ROW - 3, colour, ink.edge(colour))
            if paper.text_width(str(num_tokens), size=11) <= self.wide - 4:
                ground = ink.BG if phase == "recompute" else colour
                halo = ink.BG if phase == "recompute" else None
                at = x + self.wide / 2
                paper.text(str(num_tokens), at, y + 14, size=11, align="center", colour=ink.text_on(ground), halo=halo)

    def _budget(self) -> None:
        """The tokens of each step, below the line of the budget."""
        paper, side = self.paper, self.side
        most = max([side.token_budget, *(column.num_tokens for column in side.columns)])
        base, scale = TOP + STRIP, STRIP * 0.82 / most
        for i, column in enumerate(side.columns):
            high, is_over = column.num_tokens * scale, column.num_tokens > side.token_budget
            x = self.left + i * self.wide
            paper.box(x + 2, base - high, self.wide - 4, high, ink.WARN if is_over else ink.GHOST)
            if paper.text_width(str(column.num_tokens), size=10) <= self.wide - 1:
                paper.text(
                    str(column.num_tokens), x + self.wide / 2, base - high - 2, size=10, align="center", halo=ink.BG
                )
        line = base - side.token_budget * scale
        right = self.left + self.wide * len(side.columns)
        paper.dashes(self.left, right, line, ink.INK, 5, 3, 1.2)
        paper.text(str(side.token_budget), self.left - 6, line + 4, size=11, align="right", colour=ink.INK2)
        paper.text(say("picture_budget"), self.left - 6, line + 16, size=10, align="right", colour=ink.INK2)

    def _axis(self, bottom: float) -> None:
        every = 1 if self.wide >= 20 else 5
        for i in range(0, len(self.side.columns), every):
            middle = self.left + (i + 0.5) * self.wide
            number = str(self.side.first + i)
            self.paper.text(number, middle, bottom + 13, size=11, align="center", colour=ink.INK2)


def _legend(paper: Paper) -> list[LegendItem]:
    colour = ink.OWNERS[0]

    def recompute(x: float, y: float) -> None:
        paper.hatch(x, y, 18, 14, ink.WARN, 4, 1.6)
        paper.box(x, y, 18, 14, None, ink.WARN)

    names = say("picture_legend").split("|")
    signs: list[tuple[float, object]] = [
        (26, lambda x, y: paper.dashes(x, x + 26, y + 7, ink.INK3, 1.5, 3, 1.5)),
        (18, lambda x, y: paper.box(x, y, 18, 14, colour, ink.edge(colour))),
        (24, lambda x, y: paper.box(x, y + 3.5, 24, 7, colour, ink.edge(colour))),
        (18, recompute),
        (10, lambda x, y: paper.mark("preempted", x + 5, y + 7.5)),
    ]
    return [(name, wide, sign) for name, (wide, sign) in zip(names, signs, strict=True)]  # type: ignore[misc]
