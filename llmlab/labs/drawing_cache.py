"""pictures_cache.py on paper: yours on the left, expected on the right; a cached block carries its place in a chain.

Imported when something is drawn. This file must not know any check.
"""

from __future__ import annotations

from llmlab.labs.description import Picture
from llmlab.labs.drawing_frame import SIDE, begin, beside, end, free_blocks, outline
from llmlab.labs.pictures_cache import Cache, chains, differing, sides_of
from llmlab.labs.sentences import say
from llmlab.views import twin_paper as ink
from llmlab.views.twin_paper import Paper

SQUARE, BETWEEN, ROW = 60, 12, 96
TOP = 82


def draw(picture: Picture) -> bytes:
    """As a PNG."""
    paper = begin(picture)
    wrong, (yours, expected) = set(differing(picture)), sides_of(picture)
    bottom = 0.0
    for x, side in zip(beside(paper), (yours, expected), strict=True):
        free_blocks(paper, side.num_free, x, is_wrong=yours.num_free != expected.num_free)
        bottom = max(bottom, _draw_side(paper, side, wrong, x))
    return end(paper, picture, bottom + 22)


def _draw_side(paper: Paper, side: Cache, wrong: set[int], x: float) -> float:
    """One pool with what each lookup finds; where it ends."""
    columns = max(1, int(SIDE // (SQUARE + BETWEEN)))
    names = sorted({*side.tables, *side.found})
    colours = {name: ink.owner(i, len(names)) for i, name in enumerate(names)}
    for block in range(len(side.counts)):
        left, top = x + block % columns * (SQUARE + BETWEEN), TOP + block // columns * ROW
        paper.text(f"#{block}", left, top - 5, size=11, colour=ink.INK3)
        _draw_block(paper, side, block, colours, left, top)
        if block in wrong:
            outline(paper, left, top, SQUARE)
    y = TOP + -(-len(side.counts) // columns) * ROW - 4.0
    for chain in chains(side):
        paper.text(chain, x, y, size=13)
        y += 19
    return y


def _draw_block(paper: Paper, side: Cache, block: int, colours: dict[str, str], x: float, y: float) -> None:
    """Held: a band for each owner. Cached and free: a pale square. Empty: dots."""
    middle, owners, labels = x + SQUARE / 2, side.owners(block), side.labels(block)
    if owners:
        band = SQUARE / len(owners)
        for i, who in enumerate(owners):
            paper.box(x + i * band, y, band, SQUARE, colours[who])
            paper.text(who, x + (i + 0.5) * band, y + 18, bold=True, align="center", colour=ink.text_on(colours[who]))
        paper.box(x, y, SQUARE, SQUARE, None, ink.edge(colours[owners[0]]))
    elif labels:
        colour = colours[next(name for name, blocks in side.found.items() if block in blocks)]
        paper.box(x, y, SQUARE, SQUARE, ink.tint(colour), ink.edge(colour))
        if not side.is_poisoned(block):
            paper.text(say("picture_cached"), middle, y + 18, align="center", colour=ink.INK2)
    else:
        paper.dotted_box(x, y, SQUARE, SQUARE, ink.INK3)
        word = say("picture_nobody" if side.counts[block] else "picture_empty")
        paper.text(word, middle, y + 18, align="center", colour=ink.INK2)
    if side.is_poisoned(block):
        poison = say("picture_poison").strip()
        paper.hatch(x + 1, y + 1, SQUARE - 2, 22, ink.WARN, 4, 1.6)
        paper.text(poison, middle, y + 17, bold=True, align="center", colour=ink.WARN, halo=ink.BG)
    if labels:
        words = "+".join(labels)
        paper.pill(words, middle + (paper.text_width(words, size=11, bold=True) + 10) / 2, y + 25)
    paper.box(middle - 14, y + 42, 28, 16, ink.BG, ink.INK3 if owners else None, radius=3)
    paper.text(f"×{side.counts[block]}", middle, y + 54, bold=True, align="center")
