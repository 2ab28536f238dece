"""pictures_bars.py on paper: yours above, expected below, on one scale; cut bars are hatched, differing ones
outlined, with their numbers in bold.

Imported when something is drawn. This file must not know any check.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import MARGIN, WIDTH, begin, end
from llmlab.labs.pictures_bars import Bars, differing, shown, sides_of, top_of
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

CHART, BETWEEN, TOP = 120, 72, 92
YOURS, EXPECTED = "#3b89c2", "#405aba"
# Bars wide enough for a number above them; narrower ones only have their labels, as far as these fit.
LEAST_FOR_NUMBERS = 30


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = begin(picture)
    wrong, (yours, expected) = set(differing(picture)), sides_of(picture)
    top, bottom = top_of(yours, expected) or 1.0, 0.0
    for i, (name, side, colour) in enumerate(((say("yours"), yours, YOURS), (say("expected"), expected, EXPECTED))):
        y = TOP + i * (CHART + BETWEEN)
        paper.text(name, MARGIN, y - 34, size=14, bold=True)
        paper.text(picture["axis"], WIDTH - MARGIN, y - 34, align="right", colour=ink.INK2)
        _draw_chart(paper, side, picture["labels"], wrong, top, y, colour)
        bottom = y + CHART
    return end(paper, picture, bottom + 44)


def _draw_chart(
    paper: Paper, side: Bars, labels: list[str], wrong: set[int], top: float, y: float, colour: str
) -> None:  # fmt: skip
    step = (WIDTH - 2 * MARGIN) / len(labels)
    wide, floor = step * 0.72, y + CHART
    for i, label in enumerate(labels):
        value, cut = side.at(i)
        x, high = MARGIN + i * step + step * 0.14, CHART * (value or 0.0) / top
        _draw_bar(paper, x, floor, wide, high, colour, is_cut=bool(cut))
        is_wrong, height = i in wrong, max(high, 8.0) if i in wrong else high
        if is_wrong:
            paper.box(x - 3, floor - height - 3, wide + 6, height + 6, None, ink.WARN, thick=2.5, radius=2)
        if step >= LEAST_FOR_NUMBERS:
            said, inked = cut or shown(value, 3 if step > 60 else 2), ink.WARN if is_wrong else ink.INK2
            paper.text(said, x + wide / 2, floor - height - 8, size=11, align="center", colour=inked, bold=is_wrong)
        if step >= LEAST_FOR_NUMBERS or i % 5 == 0:
            paper.text(label, x + wide / 2, floor + 16, size=11, align="center", colour=ink.INK3)
    paper.line([(MARGIN, floor), (WIDTH - MARGIN, floor)], ink.INK3)


def _draw_bar(paper: Paper, x: float, floor: float, wide: float, high: float, colour: str, *, is_cut: bool) -> None:
    if not is_cut:
        paper.box(x, floor - high, wide, high, colour)
        return
    paper.hatch(x, floor - high, wide, high, ink.GHOST)
    paper.box(x, floor - high, wide, max(high, 1.0), None, ink.GHOST)
