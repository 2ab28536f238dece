"""The latency chart: how TTFT, the gaps between tokens and the whole answer are spread. Figures: llmlab.metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab import metrics
from llmlab.trace import Trace
from llmlab.views.plots import look

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Latency"


@dataclass(frozen=True, slots=True)
class Spread:
    """The values of one latency, in ascending order, in seconds."""

    name: str
    meaning: str
    # what is counted: "requests" or "gaps"
    of: str
    values_s: tuple[float, ...]
    # why there may be none
    without: str


def spreads(trace: Trace) -> tuple[Spread, ...]:
    """TTFT and E2E of the requests, and all gaps between their tokens (ITL)."""
    times = metrics.request_times(trace).values()
    gaps = (gap for request in times for gap in metrics.itl_s(request))
    return (
        Spread("TTFT", "to the first token", "requests", _known(map(metrics.ttft_s, times)), "no first token came out"),
        Spread("ITL", "between two tokens", "gaps", tuple(sorted(gaps)), "no request gave two tokens"),
        Spread("E2E", "to the last token", "requests", _known(map(metrics.e2e_s, times)), "no request ended by itself"),
    )


def latency(source: Trace | look.HasTrace, *, theme: look.Theme | None = None) -> go.Figure:
    """Shares of requests (TTFT, E2E) and of gaps (ITL) that took at most so long; median and p99 are marked.

    What the trace does not have is left out and named under the picture.

    Raises: LlmlabError for something without a trace, or without plotly.
    """
    trace, colours = look.trace_of(source), look.palette(theme)
    subtitle = look.about(trace.header)
    found = spreads(trace)
    shown = [spread for spread in found if spread.values_s]
    if not shown:
        why = "No tokens came out, so there is no latency to show."
        return look.nothing(TITLE, subtitle, colours, why, "Send something first: %llm Why is the sky blue?")
    most = look.MAX_POINTS // len(shown) - 4  # 2 marks, and the start of the curve
    notes = [f"{spread.name} is left out: {spread.without}." for spread in found if not spread.values_s]
    notes += [
        f"{s.name}: {look.grouped(most)} of {look.grouped(len(s.values_s))} values are drawn, evenly by rank."
        for s in shown
        if len(s.values_s) > most
    ]
    if any(len(spread.values_s) <= 100 for spread in shown):
        notes.append("With 100 values or fewer, p99 lies between the two largest.")
    figure = look.frame(TITLE, subtitle, colours, height=340, notes=notes)
    for cell, spread in enumerate(shown, start=1):
        _panel(figure, spread, cell, len(shown), most, colours)
    return figure


def _panel(figure: go.Figure, spread: Spread, cell: int, num_cells: int, most: int, colours: look.Palette) -> None:
    """One curve: y % of the values are x or less."""
    go = look.graph_objects()
    factor, unit = (1.0, "seconds") if spread.values_s[-1] >= 1 else (1000.0, "milliseconds")
    number = look.numbered(cell)
    axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
    values = [value * factor for value in spread.values_s]
    ranks = thinned(len(values), most)
    # From 0 % at the smallest value; each value lifts the curve by its share.
    x = [values[0], *(values[rank] for rank in ranks)]
    y = [0.0, *(100 * (rank + 1) / len(values) for rank in ranks)]
    figure.add_trace(
        go.Scatter(
            x=x, y=y, mode="lines", line={"shape": "hv", "width": 2, "color": colours.ink2}, **axes,
            hovertemplate=f"%{{y:.1f}} % of the {spread.of}: %{{x:.4g}} {unit} or less<extra></extra>",
        )
    )  # fmt: skip
    top = values[-1] * 1.04 or 1.0
    for q, name, symbol in ((50, "median", "circle"), (99, "p99", "diamond")):
        at = metrics.percentile(values, q)
        assert at is not None
        mark = {"symbol": symbol, "size": 9, "color": colours.ink}
        figure.add_trace(go.Scatter(x=[at], y=[q], mode="markers", marker=mark, hoverinfo="skip", **axes))
        # The curve has nothing above it on its left and nothing below it on its right.
        # A label on the left of a mark near the axis would run into the panel before.
        is_left = at > (0.3 if q == 99 else 0.55) * top
        side, place = ("left", "top") if is_left else ("right", "bottom")
        look.label(figure, f"{name} {look.short(at)}", at, q, side=side, place=place, cell=cell)
    gap = 0.06
    width = (1 - gap * (num_cells - 1)) / num_cells
    left = (cell - 1) * (width + gap)
    figure.update_layout(
        {
            f"xaxis{number}": look.axis(
                colours,
                f"{unit} {spread.meaning}",
                range=[0, top],
                domain=[left, left + width],
                anchor=f"y{number}",
                nticks=6,
            ),
            f"yaxis{number}": look.axis(
                colours,
                "% within that time" if cell == 1 else "",
                range=[0, 112],
                tickvals=[0, 25, 50, 75, 100],
                anchor=f"x{number}",
            ),
        }
    )
    title = f"{spread.name}: {_count(len(values), spread.of)}"
    look.panel_title(figure, title, cell)


def thinned(count: int, most: int) -> Sequence[int]:
    """Ranks to draw of so many sorted values: all, or evenly spaced ones with the first and the last.

    >>> list(thinned(4, 10)), thinned(1001, 3)
    ([0, 1, 2, 3], [0, 500, 1000])
    """
    return range(count) if count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _count(number: int, of: str) -> str:
    return f"{look.grouped(number)} {of if number != 1 else of.removesuffix('s')}"


def _known(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(sorted(value for value in values if value is not None))
