"""Figures of a student's own runs, and the numbers of a text: does an answer in words name one of them?

Figures are found in the variables of the notebook whenever something is checked, and kept in the record: there they are
when the work is graded, or another kernel goes on with it. This file must not know any lab.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from math import isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple

from llmlab.labs.description import Lab, Names
from llmlab.labs.record import Record

# Unit, as it is written -> what it measures, and how many of what is kept here: seconds, bytes, shares of 1.
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds", "秒"), ("s", 1.0)),
    **dict.fromkeys(("ms", "毫秒"), ("s", 1e-3)),
    **dict.fromkeys(("µs", "us", "微秒"), ("s", 1e-6)),
    **dict.fromkeys(("%", "percent"), ("share", 0.01)),
    **dict.fromkeys(("bytes", "byte", "字节"), ("bytes", 1.0)),
    **{f"{sign}B": ("bytes", 1e3**n) for sign, n in (("k", 1), ("K", 1), ("M", 2), ("G", 3))},
    **{f"{sign}iB": ("bytes", 1024.0**n) for sign, n in (("K", 1), ("M", 2), ("G", 3))},
    "share": ("share", 1.0),
}
# Words come first, so that the digits of F16, Q4_0 and SmolLM2-135M are no numbers.
_WORD_OR_NUMBER = re.compile(
    r"[A-Za-z_][A-Za-z0-9_.-]*"
    r"|(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?:\s?(?P<unit>{'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(?![A-Za-z0-9_]))?"
)
# What was counted is named exactly, or with three digits of it; what was measured may be rounded.
COUNTED_NEAR, MEASURED_NEAR = 0.01, 0.10


class Own(NamedTuple):
    """A figure of a run: where it is from, and its value in units of `kind`: "s", "bytes", "share" of 1, or ""."""

    source: str
    value: float
    kind: str = ""


class Written(NamedTuple):
    """A number in a text. `half`: half a unit of its last digit, which is how far rounding moves a value."""

    text: str
    value: float
    kind: str
    half: float


def own_figures(lab: Lab, names: Names) -> list[Own]:
    """Those that the variables of a notebook hold. Of what a student made something else of: nothing."""
    found: list[Own] = []
    for question_id, asked in lab.predictions.items():
        with suppress(Exception):
            found += _figures(question_id, asked.truth(names[asked.variable]), asked.unit)
    for figure in lab.figures:
        with suppress(Exception):
            found += _figures(figure.name, figure.of(names[figure.variable]), figure.unit)
    return found


def recorded_figures(record: Record) -> list[Own]:
    """Those that were found whenever something was checked; of a damaged record what can be read."""
    found = []
    with suppress(Exception):
        for event in record.events("figures"):
            for source, value, kind in event["figures"]:
                found.append(Own(str(source), value if isinstance(value, int) else float(value), str(kind)))
    return found


def keep_figures(record: Record, figures: Iterable[Own]) -> list[Own]:
    """All that a record holds, these among them."""
    kept = recorded_figures(record)
    if new := [figure for figure in dict.fromkeys(figures) if figure not in kept]:
        record.add("figures", figures=new)
    return [*kept, *new]


def numbers_in(text: str) -> list[Written]:
    """The numbers of a text, those that are part of a name left out.

    >>> [(one.value, one.kind) for one in numbers_in("F16 took 75 ms, a quarter of the 4,096 cells")]
    [(0.075, 's'), (4096.0, '')]
    """
    return [_written(found) for found in _WORD_OR_NUMBER.finditer(text) if found["number"]]


def names_one(text: str, figures: Iterable[Own]) -> bool:
    """Does a text name one of these figures?

    >>> names_one("the first token came after 0.08 s", [Own("", 0.0753, "s")])
    True
    >>> names_one("75 % of the blocks", [Own("", 75)])
    False
    """
    numbers = numbers_in(text)
    return any(_is(number, figure) for figure in figures for number in numbers)


def _is(number: Written, figure: Own) -> bool:
    """Without a unit, times may be in s or ms."""
    if number.kind not in ("", figure.kind):
        return False
    scales = (1.0, 1e-3) if figure.kind == "s" and not number.kind else (1.0,)
    value = abs(figure.value)
    near = COUNTED_NEAR if isinstance(figure.value, int) else MEASURED_NEAR
    for scale in scales:
        off = abs(number.value * scale - value)
        if off <= COUNTED_NEAR * value or (off <= number.half * scale and off <= near * value):
            return True
    return False


def _written(found: re.Match[str]) -> Written:
    digits = found["number"].replace(",", "")
    whole, _, decimals = digits.partition(".")
    step = 10.0 ** -len(decimals) if decimals else 10.0 ** (len(whole) - len(whole.rstrip("0")))
    kind, scale = _UNITS.get(found["unit"] or "", ("", 1.0))
    return Written(found["number"], float(digits) * scale, kind, step * scale / 2)


def _figures(source: str, value: Any, unit: str) -> Iterator[Own]:
    """Each number of a value, as deep as it lies in lists, tuples and dicts."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Real) and not isinstance(value, bool) and isfinite(value):
        kind, scale = _UNITS.get(unit, ("", 1.0))
        plain = int(value) if isinstance(value, Integral) else float(value)
        yield Own(source, plain if scale == 1 else plain * scale, kind)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            yield from _figures(source, one, unit)
