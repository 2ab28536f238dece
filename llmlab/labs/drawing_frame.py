"""What all pictures of a failed check have in common on paper: which call, the two sides by name, the sentence below.

Imported when something is drawn. This file must not know any kind of picture.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

WIDTH, MARGIN, GAP = 1000, 14, 28
# Of a side that stands beside the other.
SIDE = (WIDTH - 2 * MARGIN - GAP) / 2


def begin(picture: Picture, title: str = "picture_title") -> Paper:
    """A sheet that says after which call the two are compared. `title`: which of the sentences."""
    paper = Paper(WIDTH)
    paper.title("", say(title, call=picture["call"]), MARGIN - 10)
    return paper


def beside(paper: Paper) -> tuple[float, float]:
    """Names the two sides; where yours and where expected begins, each SIDE wide."""
    lefts = (MARGIN, MARGIN + SIDE + GAP)
    for x, key in zip(lefts, ("yours", "expected"), strict=True):
        paper.text(say(key), x, 54, size=14, bold=True)
    return lefts


def free_blocks(paper: Paper, count: int, x: float, *, is_wrong: bool) -> None:
    """At the right end of the side that begins at x."""
    colour = ink.WARN if is_wrong else ink.INK2
    paper.text(say("picture_free", count=count), x + SIDE, 54, align="right", bold=is_wrong, colour=colour)


def outline(paper: Paper, x: float, y: float, size: float) -> None:
    """Around a square that differs."""
    paper.box(x - 3, y - 3, size + 6, size + 6, None, ink.WARN, thick=3, radius=2)
    paper.mark("failed", x + size - 8, y - 10)


def end(paper: Paper, picture: Picture, y: float) -> bytes:
    """The sentence, on a line at y, and then the whole as a PNG."""
    paper.height = paper.words([(picture["sentence"], True)], MARGIN, y, WIDTH - 2 * MARGIN) + 16
    return paper.png()
