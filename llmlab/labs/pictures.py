"""The two pictures of a failed check: the blocks of a pool as they are (yours) and as they should be (expected).

A picture is plain values, so that it can travel and be kept; it is drawn where it is shown. Same blocks, same places:
where the two differ, drawing.py gives the square a heavy outline and a cross. This file must not know any check.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say


@dataclass(frozen=True, slots=True)
class Blocks:
    """A block pool at one moment. `tables`: sequence -> its blocks; `counts`: what ref_count says of each block."""

    tables: Mapping[str, Sequence[int]]
    counts: Sequence[int]
    num_free: int

    def owners(self, block: int) -> list[str]:
        return [name for name, table in self.tables.items() if block in table]

    def square(self, block: int) -> tuple[list[str], int]:
        return self.owners(block), self.counts[block]


def blocks_picture(yours: Blocks, expected: Blocks, call: str, sentence: str) -> Picture:
    """`call`: after which they are compared."""
    return {"yours": asdict(yours), "expected": asdict(expected), "call": call, "sentence": sentence}


def sides_of(picture: Picture) -> tuple[Blocks, Blocks]:
    return Blocks(**picture["yours"]), Blocks(**picture["expected"])


def differing(picture: Picture) -> list[int]:
    """Blocks whose owners or counts differ, in order."""
    yours, expected = sides_of(picture)
    both = min(len(yours.counts), len(expected.counts))
    return [block for block in range(both) if yours.square(block) != expected.square(block)]


def text_of(picture: Picture | None) -> str:
    """For a terminal: one line a side, differing blocks marked with !."""
    if picture is None:
        return ""
    wrong = differing(picture)
    lines = [say("picture_title", call=picture["call"]) + ":"]
    for name, side in zip((say("yours"), say("expected")), sides_of(picture), strict=True):
        squares = (f"{'!' if b in wrong else ''}{b}:{'+'.join(side.owners(b)) or '-'}×{side.counts[b]}" for b in
                   range(len(side.counts)))  # fmt: skip
        lines.append(f"  {name:9} {'  '.join(squares)}  free {side.num_free}")
    return "\n".join([*lines, f"  {picture['sentence']}"])


def html_of(picture: Picture | None) -> str:
    """The drawing, described by its text."""
    if picture is None:
        return ""
    from llmlab.views.twin import image_html

    return image_html(b64encode(png_of(picture)).decode(), text_of(picture))


def png_of(picture: Picture) -> bytes:
    """1000 px wide at twice the resolution."""
    from llmlab.labs.drawing import draw

    return draw(picture)
