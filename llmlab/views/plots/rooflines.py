"""The roofline of a model on a machine: is prefill, is decode bound by arithmetic or by memory?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from llmlab.errors import LlmlabError
from llmlab.models import Model, ModelConfig, get
from llmlab.views.plots import ceilings, look
from llmlab.views.plots.work import Work, decode_work, prefill_work

if TYPE_CHECKING:
    import plotly.graph_objects as go

PROMPT_TOKENS = (16, 64, 256, 1024)
BATCH_SIZES = (1, 4, 16, 64, 256)
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True, slots=True)
class Roof:
    """The most that a machine can do, and who says so."""

    flops: float
    bytes_per_s: float
    flops_source: str = "given"
    bytes_source: str = "given"

    @property
    def ridge(self) -> float:
        """Operations per byte from which on arithmetic is the limit, not memory."""
        return self.flops / self.bytes_per_s

    def reach(self, intensity: float) -> float:
        """Operations per second within reach at so many operations per byte.

        >>> Roof(100.0, 10.0).reach(4.0), Roof(100.0, 10.0).reach(20.0)
        (40.0, 100.0)

        Source: Williams, Waterman, Patterson, Roofline, CACM 52(4), 2009, doi 10.1145/1498765.1498785.
        """
        return min(self.flops, self.bytes_per_s * intensity)


def roofline(
    model: Model | ModelConfig | str,
    *,
    peak_flops: float | None = None,
    peak_bytes_per_s: float | None = None,
    quant: str = "F16",
    kv_element_bytes: int = 2,
    prompt_tokens: Sequence[int] = PROMPT_TOKENS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    context: int = 512,
    theme: look.Theme | None = None,
) -> go.Figure:
    """Where prefill (of prompts of so many tokens) and decode (of batches of so many sequences) stand under the roof.

    `peak_flops`, `peak_bytes_per_s`: what the machine can do per second, from its data sheet; what is not given is
    measured on this CPU, which takes a second or two. `context`: tokens in the KV cache of each decoding sequence.
    Points are bounds, computed from the shape of the model (see work.py), not measurements of an engine.

    Raises: LlmlabError for a peak that is not above 0, or without plotly; ModelError for an unknown model or quant.
    """
    colours = look.palette(theme)
    name, config = _shape(model)
    roof = _roof(peak_flops, peak_bytes_per_s)
    prefill = [(n, prefill_work(config, n, quant=quant, kv_element_bytes=kv_element_bytes)) for n in prompt_tokens]
    decode = [
        (n, decode_work(config, n, context=context, quant=quant, kv_element_bytes=kv_element_bytes))
        for n in batch_sizes
    ]
    subtitle = look.joined(name, quant.upper(), f"{look.grouped(context)} tokens of context", "computed from its shape")
    notes = ["Prefill: " + verdict(prefill, roof, "tokens"), "Decode: " + verdict(decode, roof, "sequences")]
    if "measured" in (roof.flops_source, roof.bytes_source):
        notes.append("measured: on this CPU; arithmetic as a float32 matrix product, memory as a triad a = b + s × c.")
    figure = look.frame("Roofline", subtitle, colours, height=430, notes=notes, legend=True)
    everywhere = [work.intensity for _, work in (*prefill, *decode)] + [roof.ridge]
    low, high = min(everywhere) / 2.2, max(everywhere) * 2.2
    _draw_roof(figure, roof, low, high, colours)
    _draw_points(figure, "prefill, tokens of the prompt", prefill, roof, "square", "top left", colours)
    _draw_points(figure, "decode, sequences in the batch", decode, roof, "circle-open", "bottom right", colours)
    return figure


def verdict(points: Sequence[tuple[int, Work]], roof: Roof, of: str) -> str:
    """Where along these points memory ceases to be the limit.

    >>> verdict([(1, Work(10, 10)), (8, Work(80, 10))], Roof(100, 25), "sequences")
    'bound by memory up to 1, by arithmetic from 8 sequences on.'
    """
    by_memory = [n for n, work in points if work.intensity < roof.ridge]
    by_arithmetic = [n for n, work in points if work.intensity >= roof.ridge]
    if not by_arithmetic:
        return f"bound by memory at every size shown, up to {look.grouped(max(by_memory))} {of}."
    if not by_memory:
        return f"bound by arithmetic at every size shown, from {look.grouped(min(by_arithmetic))} {of} on."
    last, first = look.grouped(max(by_memory)), look.grouped(min(by_arithmetic))
    return f"bound by memory up to {last}, by arithmetic from {first} {of} on."


def _shape(model: Model | ModelConfig | str) -> tuple[str, ModelConfig]:
    if isinstance(model, ModelConfig):
        return model.family, model
    found = get(model) if isinstance(model, str) else model
    return found.name, found.config


def _roof(flops: float | None, bytes_per_s: float | None) -> Roof:
    for name, value in (("peak_flops", flops), ("peak_bytes_per_s", bytes_per_s)):
        if value is not None and not value > 0:
            raise LlmlabError(f"{name} is {value}, and must be above 0. Leave it out to have it measured here.")
    return Roof(
        ceilings.peak_flops() if flops is None else flops,
        ceilings.peak_bytes_per_s() if bytes_per_s is None else bytes_per_s,
        "given" if flops is not None else "measured",
        "given" if bytes_per_s is not None else "measured",
    )


def _draw_roof(figure: go.Figure, roof: Roof, low: float, high: float, colours: look.Palette) -> None:
    go = look.graph_objects()
    x = [low, roof.ridge, high]
    y = [roof.reach(intensity) for intensity in x]
    line = {"width": 2, "color": colours.ink2}
    figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    dropped = {"width": 1, "color": colours.ink2, "dash": "dot"}
    bottom = y[0] / 2.5
    figure.add_trace(
        go.Scatter(
            x=[roof.ridge] * 2, y=[bottom, roof.flops], mode="lines", line=dropped, hoverinfo="skip", showlegend=False
        )
    )
    label = f"{look.short(roof.ridge)} operations per byte"
    look.label(figure, label, log10(roof.ridge), log10(bottom), place="top")
    # 24 pixels up: clear of the numbers at the points
    label = f"arithmetic: {with_prefix(roof.flops)}FLOP/s, {roof.flops_source}"
    look.label(figure, label, log10(high), log10(roof.flops), side="left", place="top", yshift=24)
    label = f"memory: {with_prefix(roof.bytes_per_s)}B/s, {roof.bytes_source}"
    look.label(figure, label, log10(low), log10(roof.flops), side="right", place="top")
    top = roof.flops * 4
    figure.update_layout(
        xaxis=_log_axis("operations per byte moved (log)", low, high, "", colours),
        yaxis=_log_axis("FLOP/s within reach (log)", bottom, top, "FLOP/s", colours),
    )


def _log_axis(title: str, low: float, high: float, unit: str, colours: look.Palette) -> dict[str, object]:
    """A line for each power of ten. plotly itself would write 10^15 for what is 1 P."""
    powers = [10.0**power for power in range(ceil(log10(low)), floor(log10(high)) + 1)]
    ticktext = [with_prefix(power).rstrip() if unit else f"{power:g}" for power in powers]
    limits = [log10(low), log10(high)]
    return look.axis(colours, title, type="log", range=limits, tickvals=powers, ticktext=ticktext)


def _draw_points(
    figure: go.Figure,
    name: str,
    points: Sequence[tuple[int, Work]],
    roof: Roof,
    symbol: str,
    place: str,
    colours: look.Palette,
) -> None:
    go = look.graph_objects()
    figure.add_trace(
        go.Scatter(
            x=[work.intensity for _, work in points], y=[roof.reach(work.intensity) for _, work in points],
            text=[look.grouped(n) for n, _ in points], name=name, mode="markers+text", textposition=place,
            marker={"symbol": symbol, "size": 10, "color": colours.ink, "line": {"width": 2, "color": colours.ink}},
            textfont={"size": 12, "color": colours.ink}, showlegend=True,
            hovertemplate="%{text}: %{x:.3g} operations per byte, %{y:.3s}FLOP/s within reach<extra></extra>",
        )
    )  # fmt: skip


def with_prefix(value: float) -> str:
    """Three digits and a metric prefix.

    >>> with_prefix(9.8e13), with_prefix(25.6e9), with_prefix(4.0)
    ('98 T', '25.6 G', '4 ')
    """
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{look.short(value / size)} {prefix}"
    return f"{look.short(value)} "
