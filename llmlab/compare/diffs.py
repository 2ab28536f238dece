"""What two texts have in common, word by word or token by token.

Pure functions. This file must not know engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "changed", "only a", "only b"]
_KINDS: dict[str, Kind] = {"equal": "same", "replace": "changed", "delete": "only a", "insert": "only b"}
# A word with the spaces before it; a sign of punctuation; spaces at the end.
_WORD = re.compile(r"\s*\w+|\s*[^\w\s]|\s+$")


@dataclass(frozen=True, slots=True)
class Change:
    """One stretch of both texts."""

    kind: Kind
    a: str
    b: str


def words(text: str) -> list[str]:
    """Put together again they are the text.

    >>> words("The sky is blue, mostly.")
    ['The', ' sky', ' is', ' blue', ',', ' mostly', '.']
    """
    return _WORD.findall(text)


def diff(a: Sequence[str], b: Sequence[str]) -> list[Change]:
    """The stretches of two lists of words or tokens, in order.

    >>> [(c.kind, c.a, c.b) for c in diff(words("the cat sat"), words("the dog sat down"))]
    [('same', 'the', 'the'), ('changed', ' cat', ' dog'), ('same', ' sat', ' sat'), ('only b', '', ' down')]
    """
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return [Change(_KINDS[op], "".join(a[a0:a1]), "".join(b[b0:b1])) for op, a0, a1, b0, b1 in matcher.get_opcodes()]


def spans(changes: Sequence[Change], side: Literal["a", "b"]) -> list[tuple[int, int]]:
    """Where one of the texts has what the other has not: (first character, end).

    >>> spans(diff(words("the cat sat"), words("the dog sat down")), "b")
    [(3, 7), (11, 16)]
    """
    found, at = [], 0
    for change in changes:
        length = len(getattr(change, side))
        if change.kind != "same" and length:
            found.append((at, at + length))
        at += length
    return found
