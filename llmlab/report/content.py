"""What stands in a report, as titles, sentences and tables; page and markdown say how they look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmlab.bench.page import described
from llmlab.report.criteria import Criterion

if TYPE_CHECKING:
    from llmlab.report.making import Report

Rows = list[tuple[str, ...]]
Table = tuple[tuple[str, ...], Rows]

LEGEND = "● is better by more than 5 % (perplexity: 1 %) and by more than the repeats were apart."


def title(report: Report) -> str:
    names = [facts.name for facts in report.result.engines]
    return f"Which engine: {' or '.join(names)}" if len(names) > 1 else f"{names[0]} under load"


def comparison(report: Report) -> Table:
    """One row a criterion, one column an engine; the better value of a row is marked with ●."""
    names = [facts.name for facts in report.result.engines]
    return ("", *names), [(c.name, *(_cell(c, name, names) for name in names)) for c in report.criteria]


def engines(report: Report) -> Table:
    """Who was measured: engine, version, model, format, device, room."""
    rows: Rows = [
        (facts.name, described(facts), f"{facts.max_model_len or '–'}", f"{facts.max_num_seqs or '–'}")
        for facts in report.result.engines
    ]
    return ("engine", "what it is", "longest sequence", "seats"), rows


def parity_table(report: Report) -> Table | None:
    """The parity manifest; None where there is none."""
    manifest = report.manifest
    if manifest is None:
        return None
    rows: Rows = [(r.name, r.a or "–", r.b or "–", r.verdict, r.note) for r in manifest.rows]
    return ("", manifest.a, manifest.b, "verdict", ""), rows


def method(report: Report) -> tuple[str, ...]:
    """How it was measured, in sentences."""
    result = report.result
    repeats = max((m.repeat for m in result.measurements), default=0) + 1
    loads = ", ".join(f"{load:g}" for load in sorted({m.load for m in result.measurements}))
    told = [
        f"Workload: {result.workload.title}, seed {result.seed}. {result.workload.about}",
        f"Loads: {loads} {result.workload.load_unit}; {repeats} repeats, of which the median is shown.",
        "Every engine got the same prompts and wrote answers of the same lengths. They took turns, each alone.",
        "Times are those of the engine's steps; the clock of a request starts when it was due, busy engine or not.",
    ]
    if report.perplexities:
        one = next(iter(report.perplexities.values()))
        told.append(f"Perplexity: {one.num_scored} tokens, windows of {one.window} that overlap by half.")
    if report.load_times:
        told.append(
            "Load times: from the order to load until the engine was ready; cold: its weights were on the disk only."
        )
    if report.cost:
        prices = ", ".join(f"{name} {price:g} {report.currency}".strip() for name, price in report.price.items())
        told.append(f"Cost: {prices} an hour, as you said, at the highest throughput of this run.")
    if any(m.energy_j is None for m in result.measurements):
        told.append("Energy: this machine does not tell it.")
    return tuple(told)


def machine(report: Report) -> tuple[str, ...]:
    """Where and when, with versions."""
    told = [f"{key}: {value}" for key, value in report.result.machine.items()]
    if report.result.started_at is not None:
        told.append(f"Measured: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(report.result.started_at))}")
    return tuple(told)


def _cell(criterion: Criterion, name: str, names: list[str]) -> str:
    shown = criterion.shown.get(name, "–")
    others = [other for other in names if other != name]
    return f"{shown} ●" if others and all(criterion.better(name, other) for other in others) else shown
