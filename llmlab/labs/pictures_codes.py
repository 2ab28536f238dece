"""One block of 32 weights in a block format: its scale, its codes, and the weights that these stand for.

A picture holds both sides as bytes. This file must not know any check.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say

Format = Literal["Q8_0", "Q4_0"]


@dataclass(frozen=True, slots=True)
class Block:
    scale: float
    codes: tuple[int, ...]
    # of each code, in scales: what stands for 0 is 0
    levels: tuple[int, ...]

    @property
    def weights(self) -> list[float]:
        return [self.scale * level for level in self.levels]


def codes_picture(
    name: Format, weights: Sequence[float], yours: Sequence[int], expected: Sequence[int], *, call: str, sentence: str
) -> Picture:
    """`weights`: the 32 that were quantized; `yours`, `expected`: the bytes of the block."""
    return {
        "kind": "codes", "format": name, "weights": list(weights), "yours": list(yours), "expected": list(expected),
        "call": call, "sentence": sentence,
    }  # fmt: skip


def sides_of(picture: Picture) -> tuple[Block, Block]:
    name = picture["format"]
    return block_of(name, picture["yours"]), block_of(name, picture["expected"])


def block_of(name: Format, stored: Sequence[int]) -> Block:
    """What the bytes of a block say.

    >>> block_of("Q4_0", [0, 0x3C, 0x98, *[0x88] * 15]).codes[:3]   # weight 16 is in the other nibble of byte 2
    (8, 8, 8)
    >>> block_of("Q8_0", [0, 0x3C, 255, 127, *[0] * 30]).weights[:3]
    [-1.0, 127.0, 0.0]
    """
    (scale,) = struct.unpack("<e", bytes(stored[:2]))
    if name == "Q8_0":
        codes = struct.unpack("32b", bytes(stored[2:]))
        return Block(scale, codes, codes)
    codes = (*(byte & 15 for byte in stored[2:]), *(byte >> 4 for byte in stored[2:]))
    return Block(scale, codes, tuple(code - 8 for code in codes))


def differing(picture: Picture) -> list[int]:
    """Places whose codes differ, 0 to 31."""
    yours, expected = sides_of(picture)
    return [i for i, (a, b) in enumerate(zip(yours.codes, expected.codes, strict=True)) if a != b]


def text(picture: Picture) -> str:
    """For a terminal: one line a side, differing codes marked with !."""
    wrong, (yours, expected) = differing(picture), sides_of(picture)
    lines = [say("picture_title", call=picture["call"]) + ":"]
    for name, side in ((say("yours"), yours), (say("expected"), expected)):
        mark = "!" if yours.scale != expected.scale else ""
        codes = " ".join(f"{'!' if i in wrong else ''}{code}" for i, code in enumerate(side.codes))
        lines.append(f"  {name:9} {mark}d {side.scale:.6g}  {codes}")
    return "\n".join([*lines, f"  {picture['sentence']}"])
