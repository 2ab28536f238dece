"""Two bar charts of the same things, yours above what is expected; a bar can be cut, and says by what.

This file must not know any check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say

# Heights that are no further apart than this share of the expected one look equal.
SAME = 0.005


@dataclass(frozen=True, slots=True)
class Bars:
    """`values`: heights, None for what is no number. `cut`: what cut a bar, "" where it stays; [] when nothing is."""

    values: Sequence[float | None]
    cut: Sequence[str] = ()

    def at(self, i: int) -> tuple[float | None, str]:
        return self.values[i], self.cut[i] if self.cut else ""


def bars_of(values: Sequence[float], cut: Sequence[str] = ()) -> Bars:
    """NaN and infinity become None."""
    return Bars([float(v) if isfinite(v) else None for v in values], list(cut))


def bars_picture(
    yours: Bars, expected: Bars, labels: Sequence[str], *, axis: str, call: str, sentence: str
) -> Picture:  # fmt: skip
    """`axis`: what the heights are; `labels`: of the bars; `call`: after which they are compared."""
    return {
        "kind": "bars", "yours": asdict(yours), "expected": asdict(expected), "labels": list(labels), "axis": axis,
        "call": call, "sentence": sentence,
    }  # fmt: skip


def sides_of(picture: Picture) -> tuple[Bars, Bars]:
    return Bars(**picture["yours"]), Bars(**picture["expected"])


def differing(picture: Picture) -> list[int]:
    """Bars that are cut on one side only; where there are none, those whose heights are apart."""
    yours, expected = sides_of(picture)
    pairs = [(yours.at(i), expected.at(i)) for i in range(len(picture["labels"]))]
    cut = [i for i, ((_, a), (_, b)) in enumerate(pairs) if bool(a) != bool(b)]
    return cut or [i for i, ((a, is_cut), (b, _)) in enumerate(pairs) if not is_cut and _are_apart(a, b)]


def _are_apart(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is not b
    return abs(a - b) > SAME * max(abs(b), 1e-6)


def top_of(*sides: Bars) -> float:
    """The tallest bar of all."""
    return max((value for side in sides for value in side.values if value is not None), default=0.0)


def text(picture: Picture) -> str:
    """For a terminal: one line a side, differing bars marked with !, cut ones in brackets."""
    wrong = differing(picture)
    lines = [f"{say('picture_title', call=picture['call'])} ({picture['axis']}):"]
    for name, side in zip((say("yours"), say("expected")), sides_of(picture), strict=True):
        shown = (f"{'!' if i in wrong else ''}{label}:{_told(*side.at(i))}" for i, label in
                 enumerate(picture["labels"]))  # fmt: skip
        lines.append(f"  {name:9} {'  '.join(shown)}")
    return "\n".join([*lines, f"  {picture['sentence']}"])


def _told(value: float | None, cut: str) -> str:
    return f"({cut})" if cut else shown(value)


def shown(value: float | None, digits: int = 3) -> str:
    """A number in so many digits.

    >>> shown(0.12345), shown(0.12345, 2), shown(23040.0), shown(1073741824.0), shown(None)
    ('0.123', '0.12', '23,040', '1.07e+09', 'nan')
    """
    if value is None:
        return "nan"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"
