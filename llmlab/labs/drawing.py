"""The two pictures of a failed check on paper: yours on the left, expected on the right, the sentence below.

Imported when something is drawn. This file must not know any check.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import SIDE, begin, beside, end, free_blocks, outline
from llmlab.labs.pictures import Blocks, differing, sides_of
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

SQUARE, BETWEEN, ROW = 52, 6, 78
TOP = 78


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = begin(picture)
    wrong, (yours, expected) = set(differing(picture)), sides_of(picture)
    bottom = 0.0
    for x, side in zip(beside(paper), (yours, expected), strict=True):
        free_blocks(paper, side.num_free, x, is_wrong=yours.num_free != expected.num_free)
        bottom = max(bottom, _draw_side(paper, side, wrong, x))
    return end(paper, picture, bottom + 22)


def _draw_side(paper: Paper, side: Blocks, wrong: set[int], x: float) -> float:
    """One pool with its block tables; where it ends."""
    columns = max(1, int(SIDE // (SQUARE + BETWEEN)))
    colours = {name: ink.owner(i, len(side.tables)) for i, name in enumerate(sorted(side.tables))}
    for block in range(len(side.counts)):
        left, top = x + block % columns * (SQUARE + BETWEEN), TOP + block // columns * ROW
        paper.text(f"#{block}", left, top - 5, size=11, colour=ink.INK3)
        _draw_block(paper, side.owners(block), side.counts[block], colours, left, top)
        if block in wrong:
            outline(paper, left, top, SQUARE)
    y = TOP + -(-len(side.counts) // columns) * ROW + 2.0
    for name, table in side.tables.items():
        paper.text(f"{name} → {', '.join(map(str, table)) or '–'}", x, y, size=13)
        y += 19
    return y


def _draw_block(paper: Paper, owners: list[str], count: int, colours: dict[str, str], x: float, y: float) -> None:
    """A square with a band for each owner, and what ref_count says."""
    middle = x + SQUARE / 2
    if not owners:
        paper.dotted_box(x, y, SQUARE, SQUARE, ink.INK3)
        word = say("picture_nobody" if count else "picture_free_block")
        paper.text(word, middle, y + 22, align="center", colour=ink.INK2)
    band = SQUARE / max(1, len(owners))
    for i, who in enumerate(owners):
        paper.box(x + i * band, y, band, SQUARE, colours[who])
        paper.text(who, x + (i + 0.5) * band, y + 22, bold=True, align="center", colour=ink.text_on(colours[who]))
    if owners:
        paper.box(x, y, SQUARE, SQUARE, None, ink.edge(colours[owners[0]]))
    paper.box(middle - 14, y + 29, 28, 17, ink.BG, ink.INK3 if owners else None, radius=3)
    paper.text(f"×{count}", middle, y + 42, bold=True, align="center")
