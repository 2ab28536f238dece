"""before_after(): two traces of the same requests, both timelines on one axis of seconds, and their figures.

This file must not know where a trace comes from: each panel says who measured it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab import metrics
from llmlab.cards import Card
from llmlab.trace import Trace
from llmlab.views.display import place, show_each
from llmlab.views.plots import look
from llmlab.views.plots.lanes import Lane, lanes

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Pixels of one panel, and the rows that can still be told apart in it.
_PANEL, _MAX_ROWS = 300, 96
_GAP = 0.16
Times = Collection[metrics.RequestTimes]
Figure = Callable[[Trace, Times], float | None]


@dataclass(frozen=True)
class BeforeAfter:
    """What before_after() gives: shown as a figure and a table, or taken apart."""

    before: Trace
    after: Trace
    theme: look.Theme | None = None

    @property
    def figure(self) -> go.Figure:
        return timelines(self.before, self.after, theme=self.theme)

    @property
    def table(self) -> Card:
        return differences(self.before, self.after)

    def _ipython_display_(self) -> None:
        if place() == "terminal":
            print(self)
            return
        show_each(self.figure, self.table)

    def __repr__(self) -> str:
        return repr(self.table)


def before_after(
    before: Trace | look.HasTrace, after: Trace | look.HasTrace, *, theme: look.Theme | None = None
) -> BeforeAfter:
    """Both timelines on the same axis, and throughput, latency and memory of both.

    >>> import llmlab
    >>> trace = llmlab.recorded("burst_of_64")
    >>> llmlab.before_after(trace.replay(), trace.replay(policy="static"))     # doctest: +SKIP

    Raises: LlmlabError for something without a trace, or without plotly when it is shown.
    """
    return BeforeAfter(look.trace_of(before), look.trace_of(after), theme)


def differences(before: Trace, after: Trace) -> Card:
    """Figures of both traces, and the change."""
    sides = [(trace, metrics.request_times(trace).values()) for trace in (before, after)]
    rows = [_row(name, unit, *(figure(*side) for side in sides)) for name, figure, unit in _FIGURES]
    told = (f"before: {look.about(before.header)}", f"after: {look.about(after.header)}")
    return Card("", ("", "before", "after", "change"), tuple(rows), told)


def _row(
    name: str, unit: str, before: float | None, after: float | None
) -> tuple[str, str | None, str | None, str | None]:
    def text(value: float | None) -> str | None:
        return None if value is None else f"{look.short(value)} {unit}".strip()

    change = None if before is None or after is None or not before else f"{(after / before - 1) * 100:+.0f} %"
    return name, text(before), text(after), change


def _of_requests(figure: Callable[[metrics.RequestTimes], float | None], q: float) -> Figure:
    def value(_: Trace, times: Times) -> float | None:
        found = map(figure, times)
        at = metrics.percentile([one for one in found if one is not None], q)
        return None if at is None else 1000 * at

    return value


def _of_trace(figure: Callable[[Trace], float | None]) -> Figure:
    return lambda trace, _: figure(trace)


def _longest_gap_ms(_: Trace, times: Times) -> float | None:
    gaps = [gap for one in times for gap in metrics.itl_s(one)]
    return 1000 * max(gaps) if gaps else None


def _kv_peak(trace: Trace) -> float | None:
    return max((100 * share for share in metrics.kv_use(trace) if share is not None), default=None)


def _hits(trace: Trace) -> float | None:
    if not trace.header.capabilities.prefix_caching:
        return None
    return float(sum(sum(step.prefix_hits.values()) for step in trace.step_records))


_FIGURES: tuple[tuple[str, Figure, str], ...] = (
    ("throughput", _of_trace(metrics.throughput_tps), "tok/s"),
    ("TTFT, median", _of_requests(metrics.ttft_s, 50), "ms"),
    ("TTFT, p99", _of_requests(metrics.ttft_s, 99), "ms"),
    ("TPOT, median", _of_requests(metrics.tpot_s, 50), "ms"),
    ("longest gap between two tokens", _longest_gap_ms, "ms"),
    ("whole answer, median", _of_requests(metrics.e2e_s, 50), "ms"),
    ("steps", lambda trace, _: float(len(trace.step_records)), ""),
    ("preemptions", _of_trace(metrics.num_preemptions), ""),
    ("tokens computed twice", _of_trace(metrics.recomputed_tokens), ""),
    ("tokens found in the prefix cache", _of_trace(_hits), ""),
    ("most of the KV cache in use", _of_trace(_kv_peak), "%"),
)


def timelines(before: Trace, after: Trace, *, theme: look.Theme | None = None) -> go.Figure:
    """Each request a row, in order of arrival; the same row and the same seconds above and below."""
    colours = look.palette(theme)
    both = [lanes(before), lanes(after)]
    names = list(dict.fromkeys([*both[0], *both[1]]))
    if not names:
        why = "Neither trace has a request, so there is nothing to compare."
        return look.nothing("Before and after", "", colours, why, "Record a run first: %%llm batch")
    shown = [names[i * len(names) // _MAX_ROWS] for i in range(_MAX_ROWS)] if len(names) > _MAX_ROWS else names
    notes = [
        "Dotted: waits. Thick: prefill. Thin: decode. ×: preempted; what follows it, thick again, is computed twice."
    ]
    if len(shown) < len(names):
        notes.append(f"{len(shown)} of {look.grouped(len(names))} requests are drawn, evenly by arrival.")
    until_s = max((piece.end_s for side in both for lane in side.values() for piece in lane.pieces), default=1.0)
    figure = look.frame("The same requests, before and after", "", colours, height=2 * _PANEL + 190, notes=notes)
    most = look.MAX_POINTS // 2
    for cell, (trace, side) in enumerate(zip((before, after), both, strict=True), start=1):
        _panel(figure, trace, [side.get(name) for name in shown], shown, cell, until_s, most, colours)
    return figure


def _panel(
    figure: go.Figure,
    trace: Trace,
    rows: list[Lane | None],
    names: list[str],
    cell: int,
    until_s: float,
    most: int,
    colours: look.Palette,
) -> None:
    go = look.graph_objects()
    number = look.numbered(cell)
    axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
    high = max(2.0, min(11.0, 0.72 * _PANEL / len(rows)))
    styles = {
        "waiting": {"color": colours.ghost, "width": 1, "dash": "dot"},
        "decode": {"color": colours.ghost, "width": max(1.0, high * 0.5)},
        "prefill": {"color": colours.ink2, "width": high},
        "recompute": {"color": colours.warn, "width": high},
    }
    pieces = [(row, piece) for row, lane in enumerate(rows) if lane for piece in lane.pieces]
    every = max(1, -(-3 * len(pieces) // most))
    for kind, line in styles.items():
        x: list[float | None] = []
        y: list[int | None] = []
        told: list[str | None] = []
        kept = [one for one in pieces if one[1].kind == kind]
        # Long pieces first: of too many short ones only some are drawn.
        kept = sorted(kept, key=lambda one: one[1].start_s - one[1].end_s)[: -(-len(kept) // every)]
        for row, piece in kept:
            x += [piece.start_s, piece.end_s, None]
            y += [row, row, None]
            text = f"{names[row]}: {kind} {piece.start_s:.3f} to {piece.end_s:.3f} s"
            told += [text, text, None]
        if x:
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="lines", line=line, text=told, hovertemplate="%{text}<extra></extra>", **axes)
            )
    lost = [(t_s, row) for row, lane in enumerate(rows) if lane for t_s in lane.preempted_s]
    if lost:
        mark = {"symbol": "x", "size": 7, "color": colours.warn}
        figure.add_trace(
            go.Scatter(
                x=[t_s for t_s, _ in lost], y=[row for _, row in lost], mode="markers", marker=mark,
                hovertemplate="preempted at %{x:.3f} s<extra></extra>", **axes,
            )
        )  # fmt: skip
    ended_s = max((piece.end_s for _, piece in pieces), default=0.0)
    line = {"dash": "dash", "width": 1, "color": colours.ink}
    span = {"xref": f"x{number}", "yref": f"y{number} domain", "y0": 0, "y1": 1}
    figure.add_shape(type="line", x0=ended_s, x1=ended_s, line=line, **span)
    side = "right" if ended_s < 0.85 * until_s else "left"
    below = len(rows) - 0.5 + max(1.0, 0.08 * len(rows))  # an empty row for the label
    look.label(
        figure,
        f"done after {look.short(ended_s)} s",
        ended_s,
        below - 0.35 * (below - len(rows) + 0.5),
        side=side,
        cell=cell,
    )
    figure.update_layout(
        {
            f"xaxis{number}": look.axis(
                colours,
                "seconds since the first request was sent" if cell == 2 else "",
                range=[0, until_s * 1.02],
                anchor=f"y{number}",
                matches="x2" if cell == 1 else None,
            ),
            f"yaxis{number}": look.axis(
                colours,
                "requests",
                range=[below, -0.5],
                domain=[0.5 + _GAP / 2, 1] if cell == 1 else [0, 0.5 - _GAP / 2],
                showticklabels=False,
                showgrid=False,
            ),
        }
    )
    look.panel_title(figure, f"{'Before' if cell == 1 else 'After'}: {look.about(trace.header)}", cell)
