"""What the prefix cache saved: of each request, and of all so far. Figures: llmlab.metrics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab import metrics
from llmlab.metrics import PrefixLookup
from llmlab.trace import Trace
from llmlab.views.plots import look

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE = "Prefix cache"


def prefix_hits(source: Trace | look.HasTrace, *, theme: look.Theme | None = None) -> go.Figure:
    """Two pictures over the requests in order of admission: hit rate so far, and prompt tokens found and computed.

    Readmissions after a preemption do not count, as in vLLM.

    Raises: LlmlabError for something without a trace, or without plotly.
    """
    trace, colours = look.trace_of(source), look.palette(theme)
    subtitle = look.about(trace.header)
    if (unseen := look.unseen(TITLE, trace, colours)) is not None:
        return unseen
    if not trace.header.capabilities.prefix_caching:
        why = f"{trace.header.engine} ran without a prefix cache."
        return look.nothing(TITLE, subtitle, colours, why, "Load it again with --opt prefix_caching=True")
    lookups = metrics.prefix_lookups(trace)
    if not lookups:
        return look.nothing(TITLE, subtitle, colours, "No request was admitted.", "Run something first: %%llm batch")
    groups, every = grouped(lookups, look.MAX_POINTS // 4)
    notes = [f"{look.grouped(len(lookups))} requests: each bar holds {every} of them."] if every > 1 else []
    figure = look.frame(TITLE, subtitle, colours, height=420, notes=notes, legend=True)
    _draw_rate(figure, groups, every, colours)
    _draw_requests(figure, groups, every, colours)
    return figure


def grouped(lookups: Sequence[PrefixLookup], most: int) -> tuple[list[PrefixLookup], int]:
    """At most so many: the sums over every so many that follow each other, and how many those are.

    >>> found = [PrefixLookup("a", 10, 0), PrefixLookup("b", 10, 8), PrefixLookup("c", 5, 4)]
    >>> [(g.request_id, g.num_asked, g.num_found) for g in grouped(found, 2)[0]]
    [('a … b', 20, 8), ('c', 5, 4)]
    """
    every = -(-len(lookups) // most)
    if every == 1:
        return list(lookups), 1
    stretches = (lookups[i : i + every] for i in range(0, len(lookups), every))
    return [_sum(stretch) for stretch in stretches], every


def _sum(lookups: Sequence[PrefixLookup]) -> PrefixLookup:
    first, last = lookups[0].request_id, lookups[-1].request_id
    name = first if len(lookups) == 1 else f"{first} … {last}"
    return PrefixLookup(name, sum(x.num_asked for x in lookups), sum(x.num_found for x in lookups))


def _draw_rate(figure: go.Figure, groups: Sequence[PrefixLookup], every: int, colours: look.Palette) -> None:
    go = look.graph_objects()
    asked = itertools.accumulate(group.num_asked for group in groups)
    found = itertools.accumulate(group.num_found for group in groups)
    rates = [100 * f / a if a else 0.0 for f, a in zip(found, asked, strict=True)]
    x = _places(groups, every)
    figure.add_trace(
        go.Scatter(
            x=x, y=rates, mode="lines+markers" if len(x) <= 60 else "lines",
            line={"width": 2, "color": colours.hit}, marker={"symbol": "diamond-open", "size": 7},
            hovertemplate="%{y:.1f} % of the prompt tokens so far<extra></extra>", cliponaxis=False, showlegend=False,
        )
    )  # fmt: skip
    last = f"{look.short(rates[-1])} % of all"
    look.label(figure, last, x[-1], rates[-1], side="left", place="bottom" if rates[-1] > 80 else "top")
    figure.update_layout(
        xaxis=look.axis(colours, anchor="y", showticklabels=False, matches="x2", showgrid=False),
        yaxis=look.axis(colours, "% found", range=[0, 108], tickvals=[0, 25, 50, 75, 100], domain=[0.6, 1]),
    )
    look.panel_title(figure, "Hit rate so far: prompt tokens found, of all asked for at admission", 1)


def _draw_requests(figure: go.Figure, groups: Sequence[PrefixLookup], every: int, colours: look.Palette) -> None:
    go = look.graph_objects()
    x, names = _places(groups, every), [group.request_id for group in groups]
    parts = (
        ("found in the cache", colours.hit, [group.num_found for group in groups]),
        ("computed", colours.ghost, [group.num_asked - group.num_found for group in groups]),
    )
    for name, fill, counts in parts:
        bars = go.Bar(
            x=x, y=counts, name=name, customdata=names, xaxis="x2", yaxis="y2", width=every * 0.82,
            marker={"color": fill, "line": {"width": 0}},
            hovertemplate=f"%{{customdata}}: %{{y}} tokens {name}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars)
    ticks = {"tickvals": x, "ticktext": names} if len(x) <= 24 and every == 1 else {}
    figure.update_layout(
        barmode="stack",
        xaxis2=look.axis(colours, "requests, in order of admission", anchor="y2", showgrid=False, **ticks),
        yaxis2=look.axis(colours, "prompt tokens", domain=[0, 0.44], rangemode="tozero", nticks=5),
    )
    look.panel_title(figure, "Each request", 2)


def _places(groups: Sequence[PrefixLookup], every: int) -> list[float]:
    """Where the bars stand: request 1 at 1, a group at its middle."""
    return [1 + i * every + (every - 1) / 2 for i in range(len(groups))]
