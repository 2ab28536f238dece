"""report(): what a measurement lacks for a choice is measured now, on the engines that are still loaded.

This file must not know how a report looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from llmlab.bench.result import Bench, best_point
from llmlab.engines.handle import EngineHandle
from llmlab.engines.registry import handles
from llmlab.errors import LlmlabError, RequestError, unknown
from llmlab.parity import Manifest, parity
from llmlab.quality import ExactAnswers, Perplexity, exact_answers, perplexity
from llmlab.report.choice import Choice, choice_of
from llmlab.report.claims import Evidence, Settled, settled
from llmlab.report.criteria import Criterion, criteria_of
from llmlab.report.load_times import LoadTimes, load_times

T = TypeVar("T")
Price = float | Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """Everything on one page. What is missing was not measured; `notes` say why."""

    result: Bench
    load_times: Mapping[str, LoadTimes] = field(default_factory=dict)
    perplexities: Mapping[str, Perplexity] = field(default_factory=dict)
    exact: Mapping[str, ExactAnswers] = field(default_factory=dict)
    manifest: Manifest | None = None
    # engine -> what its machine costs in an hour
    price: Mapping[str, float] = field(default_factory=dict)
    currency: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def cost(self) -> dict[str, float]:
        """Engine -> cost of a million output tokens at its highest throughput: price of an hour / tokens of an hour."""
        found = {}
        for name, per_hour in self.price.items():
            best = best_point(self.result.complete_points_of(name), lambda p: p.throughput_tps)
            if best and best.throughput_tps:
                found[name] = per_hour / (best.throughput_tps * 3600) * 1e6
        return found

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """What the engines are held against each other by."""
        return criteria_of(
            self.result, self.load_times, self.perplexities, self.exact, self.cost, self.currency
        )  # fmt: skip

    @cached_property
    def choice(self) -> Choice:
        """Which engine to take, why, and when another."""
        return choice_of(self.result, self.criteria)

    @cached_property
    def claims(self) -> tuple[Settled, ...]:
        """Rows of a widely read comparison that this run settles."""
        return settled(Evidence(self.result, self.load_times, self.perplexities, self.cost, self.currency))

    def save(self, path: str | Path) -> Path:
        """Write it: .html (one file that needs nothing else), .md, or .pdf (through a Chromium that is installed).

        Raises: LlmlabError for another suffix, or a PDF without a browser.
        """
        from llmlab.report import files

        return files.save(self, Path(path))

    def _repr_html_(self) -> str:
        from llmlab.report.page import html

        return html(self)

    def __repr__(self) -> str:
        from llmlab.report.markdown import markdown

        return markdown(self)


def report(
    result: Bench,
    *,
    path: str | Path | None = None,
    price: Price | None = None,
    currency: str = "",
    manifest: Manifest | None = None,
    perplexities: Mapping[str, Perplexity] | None = None,
    exact: Mapping[str, ExactAnswers] | None = None,
    with_load_times: bool = True,
    with_quality: bool = True,
    with_parity: bool = True,
    text: str | None = None,
) -> Report:
    """Make a report of a measurement, and write it to `path` (.html, .md, .pdf).

    Of the engines that are still loaded it measures what is missing: load times (each is loaded twice more), perplexity
    of `text` and right answers, and, with two engines, their parity; `with_...=False` leaves one out, and what was
    measured before is taken from `manifest`, `perplexities`, `exact` (by engine). `price`: what an hour of the machine
    costs, or a dict of engine and price. Stop leaves out what is not done yet.

    >>> llmlab.report(result, path="choice.html", price={"a": 0.9, "b": 0.1}, currency="EUR")     # doctest: +SKIP

    Raises: RequestError for a price that cannot be; LlmlabError when the file cannot be written.
    """
    names = [facts.name for facts in result.engines]
    prices = _prices(price, names)
    here = {name: handle for name, handle in handles().items() if name in names and handle.alive}
    gone = [name for name in names if name not in here]
    desk = _Desk([f"{name} is not loaded any more: what is missing of it was not measured." for name in gone])
    desk.perplexities.update(perplexities or {})
    desk.exact.update(exact or {})
    try:
        if with_quality:
            desk.measure("perplexity", here, lambda handle: perplexity(handle, text), desk.perplexities)
            desk.measure("right answers", here, exact_answers, desk.exact)
        if with_parity and manifest is None and len(here) == len(names) == 2:
            manifest = desk.attempt("parity", lambda: parity(*_pair(here)))
        if with_load_times:
            desk.measure("load times", here, load_times, desk.load_times)
    except KeyboardInterrupt:
        desk.notes.append("Stopped: what was not measured yet is missing.")
    desk.notes += [f"{name}: {times.note}." for name, times in desk.load_times.items() if times.note]
    made = Report(
        result, desk.load_times, desk.perplexities, desk.exact, manifest, prices, currency, tuple(desk.notes)
    )  # fmt: skip
    if path is not None:
        made.save(path)
    return made


class _Desk:
    """What was measured for a report so far, and why something was not."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self.load_times: dict[str, LoadTimes] = {}
        self.perplexities: dict[str, Perplexity] = {}
        self.exact: dict[str, ExactAnswers] = {}

    def measure(
        self, what: str, here: Mapping[str, EngineHandle], ask: Callable[[EngineHandle], T], into: dict[str, T]
    ) -> None:
        for name, handle in here.items():
            if name in into:
                continue
            if (value := self.attempt(f"{what} of {name}", lambda handle=handle: ask(handle))) is not None:  # type: ignore[misc]
                into[name] = value

    def attempt(self, what: str, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except LlmlabError as error:
            self.notes.append(f"{what}: not measured. {str(error).splitlines()[0]}")
            return None


def _pair(here: Mapping[str, EngineHandle]) -> tuple[EngineHandle, EngineHandle]:
    a, b = here.values()
    return a, b


def _prices(price: Price | None, names: list[str]) -> dict[str, float]:
    if price is None:
        return {}
    prices = dict.fromkeys(names, float(price)) if isinstance(price, int | float) else dict(price)
    for name, value in prices.items():
        if name not in names:
            raise RequestError(unknown("engine of this measurement", name, names))
        if not 0 <= value < float("inf"):
            raise RequestError(f"The price of {name} is {value!r}; give what an hour of its machine costs, 0 or more.")
    return prices
