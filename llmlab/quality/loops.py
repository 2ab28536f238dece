"""Does an answer end in a loop, the same tokens again and again? Greedy answers of small models often do.

This file must not know any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST_TIMES = 3


class Loop(NamedTuple):
    """`length` tokens that repeat to the end of an answer, for the first time from token `start` on."""

    start: int
    length: int


def find_loop(token_ids: Sequence[int]) -> Loop | None:
    """The shortest loop that an answer ends in; None when nothing is there three times in a row at its end.

    >>> find_loop([5, 7, 1, 2, 1, 2, 1, 2]), find_loop([1, 2, 3, 1, 2, 3])
    (Loop(start=2, length=2), None)
    """
    ids = list(token_ids)
    for length in range(1, len(ids) // LEAST_TIMES + 1):
        start = len(ids) - length
        while start and ids[start - 1] == ids[start - 1 + length]:
            start -= 1
        if len(ids) - start >= LEAST_TIMES * length:
            return Loop(start, length)
    return None
