"""The chart of what each step computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlab.trace import Step, Trace
from llmlab.views.plots import look

if TYPE_CHECKING:
    import plotly.graph_objects as go


def tokens_per_step(source: Trace | look.HasTrace, *, theme: look.Theme | None = None) -> go.Figure:
    """Tokens that each step computed, stacked by phase, under the budget of a step.

    Raises: LlmlabError for something without a trace, or without plotly.
    """
    trace, colours = look.trace_of(source), look.palette(theme)
    title, subtitle = "Tokens per step", look.about(trace.header)
    if (unseen := look.unseen(title, trace, colours)) is not None:
        return unseen
    if not trace.step_records:
        return look.nothing(title, subtitle, colours, "This trace has no steps.", "Run something first: %%llm batch")
    steps, every = fullest(trace.step_records, look.MAX_POINTS // 4)
    notes = [f"Each bar is the fullest of {every} steps that follow each other."] if every > 1 else []
    budget = trace.header.token_budget
    highest = max(step.num_scheduled_tokens for step in trace.step_records)
    is_far = look.is_far(highest, budget)
    if budget is not None and is_far:
        notes.append(f"Axis cut at {look.grouped(highest)}; the budget of a step is {look.grouped(budget)} tokens.")
    figure = look.frame(title, subtitle, colours, height=330, notes=notes, legend=True)
    go = look.graph_objects()
    fills = {"prefill": colours.ink2, "decode": colours.ghost, "recompute": colours.warn}
    for phase, fill in fills.items():
        counts = [sum(row.num_tokens for row in step.scheduled if row.phase == phase) for step in steps]
        if not any(counts):
            continue
        hatch = {"shape": "/", "size": 5, "solidity": 0.6, "fgcolor": fill, "bgcolor": "rgba(0,0,0,0)"}
        marker = {"color": fill, "line": {"width": 0}} | ({"pattern": hatch} if phase == "recompute" else {})
        bars = go.Bar(
            x=[step.step for step in steps], y=counts, name=phase, marker=marker, width=every,
            hovertemplate=f"step %{{x}}: {phase} %{{y}} tokens<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars)
    top = highest * 1.08 or 1
    if budget is not None and not is_far:
        top = max(top, budget * 1.12)
        figure.add_hline(y=budget, line={"dash": "dash", "width": 1, "color": colours.ink})
        text = f"budget {look.grouped(budget)}"
        look.label(figure, text, 1, budget, side="left", place="top", xref="x domain")
    figure.update_layout(
        barmode="stack",
        xaxis=look.axis(colours, "step", showgrid=False),
        yaxis=look.axis(colours, "tokens", range=[0, top]),
    )
    return figure


def fullest(steps: Sequence[Step], most: int) -> tuple[Sequence[Step], int]:
    """At most so many steps: the fullest of every so many that follow each other, and how many those are.

    >>> from llmlab.trace.example import two_requests
    >>> kept, every = fullest(two_requests().step_records, 2)
    >>> [step.step for step in kept], every
    ([0, 2], 2)
    """
    every = -(-len(steps) // most)
    stretches = (steps[i : i + every] for i in range(0, len(steps), every))
    return [max(stretch, key=lambda step: step.num_scheduled_tokens) for stretch in stretches], every
