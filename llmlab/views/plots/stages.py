"""The chart of a pipeline: which batch each of its stages works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab.engines.pipeline import Turn, bubble
from llmlab.views.plots import look

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROW = 46
_MAX_NUMBERS = 60  # of turns that have their number written in them


def stages(turns: Sequence[Turn], *, source: str = "simulated", theme: look.Theme | None = None) -> go.Figure:
    """One row a stage, one bar a batch; where there is nothing, the stage waits. `source`: who measured the times.

    Raises: LlmlabError without plotly.
    """
    colours = look.palette(theme)
    idle = bubble(turns)
    if idle is None:
        return look.nothing("Stages of a pipeline", source, colours, "There are no turns.", "Give it a batch or two.")
    num_stages = 1 + max(turn.stage for turn in turns)
    subtitle = look.joined(f"{num_stages} stages", f"{100 * idle:.0f} % of their time they wait", source)
    figure = look.frame("Stages of a pipeline", subtitle, colours, height=160 + _ROW * num_stages)
    go = look.graph_objects()
    from llmlab.views.twin_paper import text_on

    for parity, fill in enumerate((colours.ink2, colours.ghost)):
        shown = [turn for turn in turns if turn.batch % 2 == parity]
        bars = go.Bar(
            orientation="h",
            base=[1000 * turn.start_s for turn in shown],
            x=[1000 * (turn.end_s - turn.start_s) for turn in shown],
            y=[turn.stage for turn in shown],
            width=0.72,
            marker={"color": fill, "line": {"width": 0}},
            text=[str(turn.batch) for turn in shown] if len(turns) <= _MAX_NUMBERS else None,
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": text_on(fill), "size": 11},
            customdata=[turn.batch for turn in shown],
            hovertemplate="batch %{customdata} on stage %{y}: %{x:.3g} ms<extra></extra>",
        )
        figure.add_trace(bars)
    rows = list(range(num_stages))
    names = [f"stage {row}" for row in rows]
    end_ms = 1000 * max(turn.end_s for turn in turns)
    figure.update_layout(
        barmode="overlay",
        xaxis=look.axis(colours, "ms", range=[0, end_ms]),
        yaxis=look.axis(colours, showgrid=False, autorange="reversed", tickvals=rows, ticktext=names),
    )
    return figure
