"""The two pictures of a failed check: the blocks of a pool as they are (yours) and as they should be (expected).

A picture is plain values, so that it can travel and be kept; it is drawn where it is shown. Same blocks, same places:
where the two differ, drawing.py gives the square a heavy outline and a cross. A picture of another kind names it, and
is told by text() of pictures_KIND.py and drawn by draw() of drawing_KIND.py. This file must not know any check.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import import_module

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say
from llmlab.language import english


@dataclass(frozen=True, slots=True)
class Blocks:
    """A block pool at one moment. `tables`: sequence -> its blocks; `counts`: what ref_count says of each block."""

    tables: Mapping[str, Sequence[int]]
    counts: Sequence[int]
    num_free: int

    def owners(self, block: int) -> list[str]:
        return [name for name, table in self.tables.items() if block in table]

    def square(self, block: int) -> tuple[object, ...]:
        """All that is told of a block."""
        return self.owners(block), self.counts[block]


def blocks_picture(yours: Blocks, expected: Blocks, call: str, sentence: str) -> Picture:
    """`call`: after which they are compared."""
    return {"yours": asdict(yours), "expected": asdict(expected), "call": call, "sentence": sentence}


def sides_of(picture: Picture) -> tuple[Blocks, Blocks]:
    return Blocks(**picture["yours"]), Blocks(**picture["expected"])


def differing(picture: Picture) -> list[int]:
    """Blocks whose owners or counts differ, in order."""
    return differing_blocks(*sides_of(picture))


def differing_blocks(yours: Blocks, expected: Blocks) -> list[int]:
    both = min(len(yours.counts), len(expected.counts))
    return [block for block in range(both) if yours.square(block) != expected.square(block)]


def text_of(picture: Picture | None) -> str:
    """For a terminal: one line a side, differing blocks marked with !."""
    if picture is None:
        return ""
    if kind := picture.get("kind"):
        return str(import_module(f"llmlab.labs.pictures_{kind}").text(picture))
    wrong = differing(picture)
    lines = [say("picture_title", call=picture["call"]) + ":"]
    for name, side in zip((say("yours"), say("expected")), sides_of(picture), strict=True):
        squares = (f"{'!' if b in wrong else ''}{b}:{'+'.join(side.owners(b)) or '-'}×{side.counts[b]}" for b in
                   range(len(side.counts)))  # fmt: skip
        lines.append(f"  {name:9} {'  '.join(squares)}  {say('picture_free_block')} {side.num_free}")
    return "\n".join([*lines, f"  {picture['sentence']}"])


def html_of(picture: Picture | None) -> str:
    """The drawing, described by its text. Without a font for it the drawing is in English, and the sentence below."""
    if picture is None:
        return ""
    from llmlab.views.twin import image_html
    from llmlab.views.twin_paper import can_write

    said = text_of(picture)
    if can_write(said):
        return image_html(b64encode(png_of(picture)).decode(), said)
    with english():
        png = png_of({**picture, "sentence": ""})
    return image_html(b64encode(png).decode(), said) + f"<p><b>{escape(picture['sentence'])}</b></p>"


def png_of(picture: Picture) -> bytes:
    """1000 px wide at twice the resolution."""
    kind = picture.get("kind")
    drawing = import_module(f"llmlab.labs.drawing_{kind}" if kind else "llmlab.labs.drawing")
    return bytes(drawing.draw(picture))
