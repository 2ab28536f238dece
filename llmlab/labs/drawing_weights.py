"""pictures_weights.py on paper: yours on the left, expected on the right, dark where a token looks.

Imported when something is drawn. This file must not know any check.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import SIDE, begin, beside, end
from llmlab.labs.pictures_weights import Grid, differing, told
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

TOP, LABEL, MOST, HIGH = 96, 62, 52, 38
DARK, SHADES = "#1f3f8f", 8


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = begin(picture)
    wrong = set(differing(picture))
    for x, key in zip(beside(paper), ("yours", "expected"), strict=True):
        _draw_grid(paper, picture[key], picture["rows"], picture["columns"], wrong, x)
    bottom = TOP + HIGH * len(picture["rows"])
    return end(paper, picture, bottom + 26)


def _draw_grid(
    paper: Paper, weights: Grid, rows: list[str], columns: list[str], wrong: set[tuple[int, int]], x: float
) -> None:
    wide = min(MOST, (SIDE - LABEL) / max(1, len(columns)))
    left = x + LABEL
    for j, column in enumerate(columns):
        paper.text(column, left + (j + 0.5) * wide, TOP - 8, size=11, align="center", colour=ink.INK3)
    for i, row in enumerate(rows):
        y = TOP + i * HIGH
        paper.text(row, x, y + HIGH / 2 + 4, size=12, colour=ink.INK2)
        for j, weight in enumerate(weights[i]):
            at, colour = left + j * wide, _shade(weight)
            paper.box(at + 1, y + 1, wide - 2, HIGH - 2, colour, ink.LINE)
            if weight is None or weight >= 0.005:
                inked = ink.WARN if weight is None else ink.text_on(colour)
                paper.text(told(weight), at + wide / 2, y + HIGH / 2 + 4, size=12, align="center", colour=inked)
            if (i, j) in wrong:
                paper.box(at, y, wide, HIGH, None, ink.WARN, thick=2.5, radius=2)


def _shade(weight: float | None) -> str:
    """A few shades: a picture has few colours."""
    share = 0.0 if weight is None else min(1.0, max(0.0, weight)) ** 0.5
    return ink.mix(ink.BG, DARK, round(share * SHADES) / SHADES)
