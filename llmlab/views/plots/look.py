"""How every chart looks, and what all of them share: colours, frame, labels, and no more points than one can see.

plotly is imported when a chart is made. This file must not know what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol

from llmlab.errors import LlmlabError
from llmlab.trace import Header, Trace

if TYPE_CHECKING:
    import plotly.graph_objects as go

Theme = Literal["light", "dark"]
# A figure is stored in the notebook: no more points than this in all its lines and bars together.
MAX_POINTS = 10_000
# Pixels above the picture, for title and subtitle; and below it, for the labels of its axis.
_ABOVE, _AXIS = 92, 48
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


class HasTrace(Protocol):
    """A Run, a Result, a loaded engine."""

    @property
    def trace(self) -> Trace: ...


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by what they are for. `ink` is text, `ink2` marks, `ghost` marks of less weight."""

    ink: str
    ink2: str
    ghost: str
    line: str
    warn: str
    hit: str


# light and dark are those of static/theme.js.
LIGHT = Palette("#1b2027", "#4d5663", "#868f9d", "#d5d9e0", "#b3380b", "#0b6b63")
DARK = Palette("#eef1f5", "#bac2cd", "#6b7480", "#3d434c", "#ff9466", "#53d3c3")
# Where nobody says what the paper is: text has a contrast of 4.5 on white and 4.2 on JupyterLab's dark #111111.
EITHER = Palette("#6e7785", "#5a6472", "#98a1ae", "rgba(128,138,150,0.28)", "#d2521f", "#14897e")


def palette(theme: Theme | None) -> Palette:
    known = {None: EITHER, "light": LIGHT, "dark": DARK}
    if theme not in known:
        raise LlmlabError(f"Unknown theme {theme!r}. Known: dark, light; leave it out for colours that do on both.")
    return known[theme]


def trace_of(source: Trace | HasTrace) -> Trace:
    """The trace itself, or that of a run.

    Raises: LlmlabError for what has none.
    """
    trace = source if isinstance(source, Trace) else getattr(source, "trace", None)
    if not isinstance(trace, Trace):
        raise LlmlabError(
            f"A {type(source).__name__} has no trace. Give a Run, a loaded engine, or llmlab.Trace.load(file)."
        )
    return trace


def about(header: Header) -> str:
    """Who ran what, and who measured: the line under a title."""
    engine = f"{header.engine} {header.engine_version}".strip()
    return joined(engine, header.model, header.quant or header.dtype, header.device, header.source)


def joined(*parts: str | None) -> str:
    return " · ".join(part for part in parts if part)


def grouped(number: float) -> str:
    """Thousands apart by a thin space.

    >>> grouped(34909)
    '34\\u2009909'
    """
    return f"{number:,.0f}".replace(",", "\u2009")


def short(value: float) -> str:
    """Three digits, as far as they are whole numbers.

    >>> short(0.018342), short(1.254), short(109.2), short(1234.5)
    ('0.0183', '1.25', '109', '1\\u2009234')
    """
    return grouped(value) if value >= 100 else f"{value:.3g}"


def graph_objects() -> ModuleType:
    """plotly.graph_objects.

    Raises: LlmlabError that says what to install.
    """
    try:
        import plotly.graph_objects
    except ImportError:
        raise LlmlabError("plotly is not installed. Type `pip install 'llmlab-kit[views]'`.") from None
    module: ModuleType = plotly.graph_objects
    return module


def frame(
    title: str, subtitle: str, colours: Palette, *, height: int, notes: Sequence[str] = (), legend: bool = False
) -> go.Figure:
    """An empty figure: title, who measured, and under the picture its legend and what was left out or thinned.

    `height`: without legend and notes. Texts may hold names of models and requests: they are shown as they are, never
    as markup.
    """
    figure = graph_objects().Figure()
    below = 28 * legend + 17 * len(notes)
    figure.update_layout(
        template="none",
        height=height + below,
        margin={"l": 64, "r": 28, "t": _ABOVE, "b": _AXIS + 14 + below},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": colours.ink},
        title={
            "text": escape(title, quote=False),
            "font": {"size": 15, "weight": 600},
            "subtitle": {"text": escape(subtitle, quote=False), "font": {"size": 12, "color": colours.ink}},
            "x": 0, "xref": "container", "xanchor": "left",
            "y": 1, "yref": "container", "yanchor": "top", "pad": {"l": 14, "t": 12},
        },
        separators=".\u2009",
        showlegend=legend,
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "traceorder": "normal", "font": {"size": 12},
            "y": -_AXIS / (height - _ABOVE - _AXIS - 14), "yanchor": "top",
        },
        hoverlabel={"font": {"family": FONT, "size": 12}},
        bargap=0,
    )  # fmt: skip
    for number, note in enumerate(notes):
        # in the margin, lined up with the title
        figure.add_annotation(
            text=escape(note, quote=False), showarrow=False, xref="paper", yref="paper",
            x=0, xanchor="left", xshift=-50, y=0, yanchor="top", yshift=-_AXIS - 28 * legend - 17 * number,
        )  # fmt: skip
    return figure


def axis(colours: Palette, title: str = "", **more: object) -> dict[str, object]:
    """What every axis has; numbers with thousands apart."""
    style: dict[str, object] = {
        "title": {"text": title, "font": {"size": 12}, "standoff": 8},
        "tickfont": {"size": 11},
        "gridcolor": colours.line,
        "linecolor": colours.line,
        "zeroline": False,
        "automargin": False,
    }
    return style | more


def label(
    figure: go.Figure,
    text: str,
    x: float,
    y: float,
    *,
    side: str = "right",
    place: str = "middle",
    cell: int = 1,
    **more: object,
) -> None:
    """A text beside a mark: on its `side`, "top", "middle" or "bottom" of it; `cell` counts the panels from 1."""
    number = numbered(cell)
    placed: dict[str, object] = {
        "xref": f"x{number}",
        "yref": f"y{number}",
        "xanchor": {"right": "left", "left": "right", "middle": "center"}[side],
        "xshift": {"right": 7, "left": -7, "middle": 0}[side],
        "yanchor": {"top": "bottom", "middle": "middle", "bottom": "top"}[place],
        "yshift": {"top": 3, "middle": 0, "bottom": -3}[place],
    }
    figure.add_annotation(text=escape(text, quote=False), x=x, y=y, showarrow=False, **(placed | more))


def numbered(cell: int) -> str:
    """What plotly writes behind x and y for the axes of a panel: nothing for the first.

    >>> f"xaxis{numbered(1)}", f"xaxis{numbered(2)}"
    ('xaxis', 'xaxis2')
    """
    return "" if cell == 1 else str(cell)


def panel_title(figure: go.Figure, text: str, cell: int) -> None:
    """A line above a panel, at its left edge."""
    number = numbered(cell)
    figure.add_annotation(
        text=escape(text, quote=False), showarrow=False, xref=f"x{number} domain", yref=f"y{number} domain",
        x=0, xanchor="left", y=1, yanchor="bottom", yshift=4, font={"size": 13},
    )  # fmt: skip


def nothing(title: str, subtitle: str, colours: Palette, why: str, instead: str) -> go.Figure:
    """The picture where there is nothing to draw: why, and what to type."""
    figure = frame(title, subtitle, colours, height=230)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    text = f"<b>{escape(why, quote=False)}</b><br>{escape(instead, quote=False)}"
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13})
    return figure


def unseen(title: str, trace: Trace, colours: Palette) -> go.Figure | None:
    """The picture where the steps of an engine stay on its server; None where they are seen."""
    if trace.header.capabilities.steps:
        return None
    why = f"The steps of {trace.header.engine} stay on the server: nobody knows what they computed."
    return nothing(title, about(trace.header), colours, why, "See them: %llm connect URL --trace")


def envelope(values: Sequence[float | None], most: int) -> list[int]:
    """Which of the values to draw, at most so many: of each stretch its lowest and its highest, in order.

    >>> envelope([1, 5, 2, 0, 3, 3, 9, 3], 4)
    [1, 3, 4, 6]
    """
    if len(values) <= most:
        return list(range(len(values)))
    num_stretches = max(1, most // 2)
    kept: list[int] = []
    for stretch in range(num_stretches):
        first, end = (len(values) * (stretch + k) // num_stretches for k in (0, 1))
        known = [(value, i) for i in range(first, end) if (value := values[i]) is not None]
        # a stretch without any value stays a gap
        pair = {min(known)[1], max(known)[1]} if known else {first}
        kept += sorted(pair)
    return kept


def is_far(highest: float, limit: int | None) -> bool:
    """So far above what was reached that its line would leave the picture empty."""
    return limit is not None and highest < limit / 4
