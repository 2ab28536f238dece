"""pictures_codes.py on paper: the weights of a block as bars, and across each the level that its code stands for.

Yours above, expected below, on one scale; codes that differ are outlined. Imported when something is drawn. This file
must not know any check.
"""

from __future__ import annotations

from math import isfinite

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import MARGIN, WIDTH, end
from llmlab.labs.pictures_codes import Block, differing, sides_of
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

CHART, BETWEEN, TOP = 150, 84, 84
BAR, LEVEL = "#a9c4e4", "#1b2027"
# Levels that are drawn as a line: all 16 of Q4_0, every 32nd of Q8_0.
LINES = {"Q4_0": range(-8, 8), "Q8_0": range(-128, 128, 32)}


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = Paper(WIDTH)
    paper.title(say("picture_title", call=picture["call"]), say("codes_legend"), MARGIN)
    wrong, (yours, expected) = set(differing(picture)), sides_of(picture)
    reach = 1.08 * max([abs(weight) for weight in picture["weights"]] + [1e-30])
    y = 0.0
    for i, (name, side) in enumerate(((say("yours"), yours), (say("expected"), expected))):
        y = TOP + i * (CHART + BETWEEN)
        is_other = yours.scale != expected.scale
        paper.text(name, MARGIN, y - 14, size=14, bold=True)
        paper.text(
            say("codes_scale", scale=f"{side.scale:.6g}"), WIDTH - MARGIN, y - 14, size=13, align="right",
            bold=is_other, colour=ink.WARN if is_other else ink.INK2,
        )  # fmt: skip
        _draw_side(paper, picture, side, wrong, reach, y)
    return end(paper, picture, y + CHART + 52)


def _draw_side(paper: Paper, picture: Picture, side: Block, wrong: set[int], reach: float, top: float) -> None:
    """Grid, bars, levels, and the codes below."""
    middle, step = top + CHART / 2, (WIDTH - 2 * MARGIN) / len(side.codes)

    def height(value: float) -> float:
        """Of a weight above the middle, kept inside the chart."""
        kept = max(-reach, min(reach, value)) if isfinite(value) else 0.0
        return kept / reach * CHART / 2

    for level in LINES[picture["format"]]:
        if isfinite(side.scale) and abs(level * side.scale) <= reach:
            y = middle - height(level * side.scale)
            paper.line(
                [(MARGIN, y), (WIDTH - MARGIN, y)], ink.INK3 if level == 0 else ink.LINE, 1 if level == 0 else 0.5
            )
    for i, (weight, value, code) in enumerate(zip(picture["weights"], side.weights, side.codes, strict=True)):
        x, wide = MARGIN + i * step + step * 0.16, step * 0.68
        up = height(weight)
        paper.box(x, middle - max(up, 0), wide, abs(up), BAR)
        paper.box(x - 2, middle - height(value) - 1.25, wide + 4, 2.5, LEVEL)
        paper.text(str(code), x + wide / 2, top + CHART + 17, size=11, bold=i in wrong, align="center",
                   colour=ink.WARN if i in wrong else ink.INK)  # fmt: skip
        if i in wrong:
            paper.box(x - 3, top - 2, wide + 6, CHART + 24, None, ink.WARN, thick=2, radius=2)
            paper.mark("failed", x + wide - 1, top - 5)
