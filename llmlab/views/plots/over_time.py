"""The chart of the KV cache and the batch over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab.trace import BlockDelta, CellDelta, Step, Trace
from llmlab.trace.times import nobody_left, start_s
from llmlab.views.plots import look

if TYPE_CHECKING:
    import plotly.graph_objects as go

# time in seconds, value
Points = list[tuple[float, int | None]]


def kv_use(source: Trace | look.HasTrace, *, theme: look.Theme | None = None) -> go.Figure:
    """Two pictures over one time axis: blocks or cells of the KV cache in use, and requests in the batch.

    Preemptions are marked on the upper one. When under a quarter of the cache was used, its axis is cut and says so.

    Raises: LlmlabError for something without a trace, or without plotly.
    """
    trace, colours = look.trace_of(source), look.palette(theme)
    title, subtitle = "KV cache and batch", look.about(trace.header)
    if (unseen := look.unseen(title, trace, colours)) is not None:
        return unseen
    if not trace.step_records:
        return look.nothing(title, subtitle, colours, "This trace has no steps.", "Run something first: %%llm batch")
    begin_s, clock = _beginning(trace)
    used = [(step.t_s - begin_s, _used(step)) for step in trace.step_records]
    known = [value for _, value in used if value is not None]
    most = look.MAX_POINTS // 4
    notes = _notes(trace, known, most)
    figure = look.frame(title, subtitle, colours, height=430 if known else 290, notes=notes)
    if known:
        _draw_kv(figure, trace, used, max(known), begin_s, most, colours)
    _draw_batch(figure, trace, begin_s, most, colours, cell=2 if known else 1)
    figure.update_xaxes(range=[0, used[-1][0]])
    figure.update_layout({"xaxis2" if known else "xaxis": {"title": {"text": clock}}})
    return figure


def requests_over_time(trace: Trace, begin_s: float) -> tuple[Points, Points]:
    """Requests in the batch, and those that wait: each value lasts from the point before to its own.

    While nobody is there the engine idles, where steps tell when they began.
    """
    batch: Points = []
    waiting: Points = []
    was_idle = False
    steps = trace.step_records
    for step, is_idle in zip(steps, nobody_left(steps), strict=True):
        began_s, is_first = start_s(step), not batch
        if is_first or (was_idle and began_s is not None):
            at_s = (step.t_s if began_s is None else began_s) - begin_s
            batch.append((at_s, len(step.scheduled) if is_first else 0))
            waiting.append((at_s, step.num_waiting if is_first else 0))
        batch.append((step.t_s - begin_s, len(step.scheduled)))
        waiting.append((step.t_s - begin_s, step.num_waiting))
        was_idle = is_idle
    return batch, waiting


def _draw_kv(
    figure: go.Figure, trace: Trace, used: Points, highest: int, begin_s: float, most: int, colours: look.Palette
) -> None:
    total, unit = _room(trace)
    _line(figure, used, "hv", most, colours.ink2, f"%{{y:,d}} {unit} in use at %{{x:.3f}} s", cell=1, fill="tozeroy")
    is_far = look.is_far(highest, total)
    top = highest * 1.12 or 1
    if total and not is_far:
        top = max(top, total * 1.12)
        figure.add_hline(y=total, line={"dash": "dash", "width": 1, "color": colours.ink})
        text = f"all memory: {look.grouped(total)} {unit}"
        look.label(figure, text, 1, total, side="left", place="top", xref="x domain")
    lost = [
        (t_s, value, len(s.preempted)) for (t_s, value), s in zip(used, trace.step_records, strict=True) if s.preempted
    ]
    if lost:
        go = look.graph_objects()
        lost = lost[:: -(-len(lost) // most)]
        figure.add_trace(
            go.Scatter(
                x=[t_s for t_s, *_ in lost], y=[value for _, value, _ in lost], customdata=[n for *_, n in lost],
                mode="markers", marker={"symbol": "triangle-down", "size": 10, "color": colours.warn},
                hovertemplate="%{customdata} preempted at %{x:.3f} s<extra></extra>",
            )
        )  # fmt: skip
    count = Counter(r for step in trace.step_records for r in step.preempted).total()
    told = f"; ▼ {count} preempted" if count else ""
    figure.update_layout(
        xaxis=look.axis(colours, anchor="y", showticklabels=False, matches="x2"),
        yaxis=look.axis(colours, unit, range=[0, top], domain=[0.5, 1]),
    )
    look.panel_title(figure, f"KV {unit} in use{told}", 1)


def _draw_batch(
    figure: go.Figure, trace: Trace, begin_s: float, most: int, colours: look.Palette, *, cell: int
) -> None:
    batch, waiting = requests_over_time(trace, begin_s)
    number = look.numbered(cell)
    highest = max(value or 0 for _, value in (*batch, *waiting))
    _line(figure, batch, "vh", most, colours.ink2, "%{y} in the batch at %{x:.3f} s", cell=cell, fill="tozeroy")
    if any(value for _, value in waiting):
        _line(figure, waiting, "vh", most, colours.ink, "%{y} wait at %{x:.3f} s", cell=cell, dash="dot")
    limit = trace.header.max_num_seqs
    if limit and not look.is_far(highest, limit):
        figure.add_hline(y=limit, line={"dash": "dash", "width": 1, "color": colours.ink}, yref=f"y{number}")
        text = f"at most {limit} at once"
        look.label(figure, text, 1, limit, side="left", place="top", cell=cell, xref=f"x{number} domain")
        highest = max(highest, limit)
    figure.update_layout(
        {
            f"xaxis{number}": look.axis(colours, anchor=f"y{number}"),
            f"yaxis{number}": look.axis(
                colours, "requests", range=[0, highest * 1.15 or 1], domain=[0, 0.36 if cell == 2 else 1], nticks=5
            ),
        }
    )
    look.panel_title(figure, "Requests: in the batch (filled), waiting (dotted)", cell)


def _line(
    figure: go.Figure, points: Points, shape: str, most: int, colour: str, told: str, *, cell: int, dash: str = "solid",
    fill: str | None = None,
) -> None:  # fmt: skip
    go = look.graph_objects()
    number = look.numbered(cell)
    kept = [points[i] for i in look.envelope([value for _, value in points], most)]
    figure.add_trace(
        go.Scatter(
            x=[t_s for t_s, _ in kept], y=[value for _, value in kept], mode="lines", fill=fill,
            fillcolor="rgba(128,138,150,0.30)" if fill else None,
            line={"shape": shape, "width": 1.5, "color": colour, "dash": dash},
            hovertemplate=f"{told}<extra></extra>", xaxis=f"x{number}", yaxis=f"y{number}",
        )
    )  # fmt: skip


def _notes(trace: Trace, known: Sequence[int], most: int) -> list[str]:
    notes: list[str] = []
    num_steps = len(trace.step_records)
    total, unit = _room(trace)
    if not known:
        notes.append("KV use is left out: this engine does not tell it.")
    elif len(known) < num_steps:
        notes.append(
            f"KV use is not told after {num_steps - len(known)} of {num_steps} steps: the line is broken there."
        )
    if known and total and look.is_far(max(known), total):
        notes.append(f"KV axis cut at {look.grouped(max(known))} of {look.grouped(total)} {unit}.")
    if num_steps > most:
        notes.append(f"{look.grouped(num_steps)} steps: the lowest and highest of each stretch are drawn.")
    return notes


def _used(step: Step) -> int | None:
    if isinstance(step.kv, BlockDelta):
        return step.kv.num_blocks - step.kv.num_free
    return step.kv.num_used if isinstance(step.kv, CellDelta) else None


def _room(trace: Trace) -> tuple[int | None, str]:
    """All blocks or cells of the cache, and what they are called."""
    kv = next((step.kv for step in trace.step_records if step.kv is not None), None)
    if isinstance(kv, CellDelta):
        return kv.num_cells, "cells"
    return (kv.num_blocks, "blocks") if kv is not None else (None, "")


def _beginning(trace: Trace) -> tuple[float, str]:
    """Second 0 of the time axis, and its name."""
    if trace.request_records:
        return min(r.arrival_s for r in trace.request_records), "seconds since the first request was sent"
    return 0.0, "seconds since the engine's clock began"
