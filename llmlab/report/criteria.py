"""What engines are held against each other by: one figure of each, and who is better in it by how much.

This file must not know pages or engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from llmlab.bench.measurement import Measurement
from llmlab.bench.result import Bench, Point, best_point
from llmlab.cards import bytes_text, seconds_text
from llmlab.quality import ExactAnswers, Perplexity
from llmlab.report.load_times import LoadTimes

T = TypeVar("T")
# Two figures of one run closer than this are the same: machines drift by as much while they are measured.
CLOSE = 0.05
CLOSE_PERPLEXITY = 0.01


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of the comparison. `when`: who cares about it, as the end of "if ..."."""

    name: str
    when: str
    lower_is_better: bool
    # engine -> value; None: not measured
    values: Mapping[str, float | None]
    shown: Mapping[str, str]
    # engine -> lowest and highest of the repeats
    spreads: Mapping[str, tuple[float, float] | None]
    # How far two values may be apart and still be the same: as a share of them, and as it is.
    close: float = CLOSE
    tolerance: float = 0.0

    def better(self, a: str, b: str) -> bool:
        """Whether `a` is better than `b` by more than this run can have by chance."""
        one, other = self.values.get(a), self.values.get(b)
        if one is None or other is None:
            return False
        ahead = other - one if self.lower_is_better else one - other
        if ahead <= max(self.close * abs(other), self.tolerance):
            return False
        mine, theirs = self.spreads.get(a), self.spreads.get(b)
        if mine is None or theirs is None:
            return True
        return mine[1] < theirs[0] if self.lower_is_better else mine[0] > theirs[1]


def criteria_of(
    result: Bench,
    load_times: Mapping[str, LoadTimes],
    perplexities: Mapping[str, Perplexity],
    exact: Mapping[str, ExactAnswers],
    cost: Mapping[str, float],
    currency: str,
) -> tuple[Criterion, ...]:
    """All of them, in the order of their weight; those that no engine has a figure for are left out."""
    names = [facts.name for facts in result.engines]
    points = {name: result.complete_points_of(name) for name in names}
    best = {name: best_point(points[name], lambda p: p.throughput_tps) for name in names}
    first = {name: points[name][0] if points[name] else None for name in names}
    facts = {each.name: each for each in result.engines}
    one_user = "one user at a time should "
    tried = [
        _goodput(result, points),
        _at("most tokens/s", "throughput is what counts", best, lambda p: p.throughput_tps, _tps, lower=False),
        _at(
            "TTFT at the lowest load, median", f"{one_user}see a first word soon", first, _latency("ttft"), seconds_text
        ),
        _at(
            "time per token at the lowest load, median",
            f"{one_user}not wait for words",
            first,
            _latency("tpot"),
            seconds_text,
        ),
        _at("memory of its process, peak", "memory is short", best, _median(lambda m: m.rss_peak_bytes), bytes_text),
        _at(
            "processor time per token",
            "the processor is needed for other work",
            best,
            _median(lambda m: m.cpu_s_per_token),
            _milli,
        ),
        _plain("load, warm", "it is started often", _value(names, load_times, lambda t: t.warm_s), seconds_text),
        _plain("load, cold", "it starts on a new machine", _value(names, load_times, lambda t: t.cold_s), seconds_text),
        _perplexity(names, perplexities),
        _exact(names, exact),
        _plain(", ".join(filter(None, ["cost per million tokens", currency])), "money decides", cost, "{:.3g}".format),
        _plain(
            "weights, as reported", "the download counts", _value(names, facts, lambda f: f.weights_bytes), bytes_text
        ),
    ]
    return tuple(c for c in tried if c is not None and any(value is not None for value in c.values.values()))


def _value(names: Sequence[str], of: Mapping[str, T], figure: Callable[[T], float | None]) -> dict[str, float | None]:
    return {name: figure(of[name]) if name in of else None for name in names}


def _goodput(result: Bench, points: Mapping[str, Sequence[Point]]) -> Criterion | None:
    if not result.slo:
        return None
    best = {name: best_point(of_engine, lambda p: p.goodput_rps) for name, of_engine in points.items()}
    name = f"most requests/s within {result.slo}"
    return _at(name, "the limits decide", best, lambda p: p.goodput_rps, "{:.2g}/s".format, lower=False)


def _at(
    name: str,
    when: str,
    points: Mapping[str, Point | None],
    figure: Callable[[Point], float | None],
    show: Callable[[float], str],
    *,
    lower: bool = True,
) -> Criterion:
    """A figure of one point of each engine."""
    values = {engine: figure(point) if point else None for engine, point in points.items()}
    shown = {
        engine: f"{show(value)} at load {point.load:g}"
        for engine, point in points.items()
        if point is not None and (value := values[engine]) is not None
    }
    spreads = {engine: _spread(point, figure) if point else None for engine, point in points.items()}
    return Criterion(name, when, lower, values, shown, spreads)


def _spread(point: Point, figure: Callable[[Point], float | None]) -> tuple[float, float] | None:
    """Of the figure over the repeats, each taken as a point of its own."""
    each = [figure(Point(point.engine, point.load, (m,))) for m in point.repeats]
    known = [value for value in each if value is not None]
    return (min(known), max(known)) if len(known) > 1 else None


def _plain(name: str, when: str, values: Mapping[str, float | None], show: Callable[[float], str]) -> Criterion:
    """A figure of which there is one an engine; lower is better."""
    shown = {engine: show(value) for engine, value in values.items() if value is not None}
    return Criterion(name, when, True, values, shown, {})


def _perplexity(names: Sequence[str], perplexities: Mapping[str, Perplexity]) -> Criterion:
    """Over the same tokens a small difference counts. Over others, of another tokenizer, none does."""
    shown = {name: f"{float(each):.2f}" for name, each in perplexities.items()}
    is_same_text = len({each.num_tokens for each in perplexities.values()}) < 2
    return Criterion(
        "perplexity", "the quality of each token counts", True, _value(names, perplexities, float), shown, {},
        close=CLOSE_PERPLEXITY, tolerance=0.0 if is_same_text else math.inf,
    )  # fmt: skip


def _exact(names: Sequence[str], exact: Mapping[str, ExactAnswers]) -> Criterion:
    """Of 24 questions a difference of two or three is chance: half the width of the interval is allowed."""
    values = _value(names, exact, lambda e: e.share)
    shown = {name: f"{e.num_right} of {len(e.answered)}" for name, e in exact.items()}
    half = max(((e.interval[1] - e.interval[0]) / 2 for e in exact.values()), default=0.0)
    return Criterion("right answers", "answers must be right", False, values, shown, {}, tolerance=half)


def _latency(name: str) -> Callable[[Point], float | None]:
    return lambda point: point.latency_s(name, 50)


def _median(figure: Callable[[Measurement], float | None]) -> Callable[[Point], float | None]:
    return lambda point: point.median(figure)


def _tps(value: float) -> str:
    return f"{value:.0f} tok/s" if value >= 10 else f"{value:.2g} tok/s"


def _milli(value: float) -> str:
    return f"{1000 * value:.2g} ms"
