"""Attention weights of one head as two grids: a row for each token that looks, a column for each that is looked at.

This file must not know any check.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say

# Weights that are no further apart than this look equal.
SAME = 0.01
Grid = Sequence[Sequence[float | None]]


def weights_picture(
    yours: Sequence[Sequence[float]], expected: Sequence[Sequence[float]], *, rows: Sequence[str],
    columns: Sequence[str], call: str, sentence: str,
) -> Picture:  # fmt: skip
    """Weights of 0 to 1; NaN and infinity are shown as such."""
    sides = {name: [[float(w) if isfinite(w) else None for w in row] for row in side] for name, side in
             (("yours", yours), ("expected", expected))}  # fmt: skip
    return {
        "kind": "weights",
        **sides,
        "rows": list(rows),
        "columns": list(columns),
        "call": call,
        "sentence": sentence,
    }


def differing(picture: Picture) -> list[tuple[int, int]]:
    """(row, column) of weights that differ."""
    pairs = zip(picture["yours"], picture["expected"], strict=True)
    return [(i, j) for i, rows in enumerate(pairs) for j, (a, b) in enumerate(zip(*rows, strict=True)) if _differ(a, b)]


def _differ(a: float | None, b: float | None) -> bool:
    return a is None or b is None or abs(a - b) > SAME


def text(picture: Picture) -> str:
    """For a terminal: one line a token, differing weights marked with !."""
    wrong = set(differing(picture))
    lines = [say("picture_title", call=picture["call"]) + ":"]
    for key in ("yours", "expected"):
        for i, (row, weights) in enumerate(zip(picture["rows"], picture[key], strict=True)):
            shown = (f"{'!' if (i, j) in wrong else ''}{told(w)}" for j, w in enumerate(weights))
            lines.append(f"  {say(key) if not i else '':9} {row:9} {' '.join(shown)}")
    return "\n".join([*lines, f"  {picture['sentence']}"])


def told(weight: float | None) -> str:
    """Two digits, nothing for what is not looked at.

    >>> told(0.123), told(1.0), told(0.0), told(None)
    ('.12', '1.0', '.', 'nan')
    """
    if weight is None:
        return "nan"
    if weight < 0.005:
        return "."
    return f"{weight:.1f}" if weight >= 0.995 else f"{weight:.2f}"[1:]
