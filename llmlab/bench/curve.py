"""Curves of a measurement as SVG, drawn here so that a page needs no script and no second file.

Who is who is said by colour, by the shape of the marks and by a name beside the line. This file must not know engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from llmlab.bench.result import Bench, Point

WIDTH, HEIGHT = 470, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 40, 46
_MARKS = ("circle", "square", "triangle", "diamond")
# A line that spans more than this is drawn on a logarithmic axis.
_LOG_FROM = 12


XY = tuple[float, float, str]
Place = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: (x, y, what stands beside the mark). `index`: whose it is; `is_thin`: beside the main one."""

    name: str
    points: tuple[XY, ...]
    index: int
    is_thin: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    # The load at the knee, (x, y) of each, ringed.
    rings: tuple[tuple[float, float], ...] = ()


def curves(result: Bench) -> tuple[Panel, ...]:
    """Throughput against latency, TTFT by load, and goodput by load where a limit was given; none of one load."""
    points = {facts.name: result.points_of(facts.name) for facts in result.engines}
    if max((len(of_engine) for of_engine in points.values()), default=0) < 2:
        return ()
    unit, rings = result.workload.load_unit, []
    curve, first, p99, good = [], [], [], []
    for i, (name, of_engine) in enumerate(points.items()):
        curve.append(Line(name, _xy(of_engine, lambda p: (p.throughput_tps, p.latency_s("e2e", 50)), labels=True), i))
        first.append(Line(name, _xy(of_engine, lambda p: (p.load, p.latency_s("ttft", 50))), i))
        p99.append(Line(f"{name}, p99", _xy(of_engine, lambda p: (p.load, p.latency_s("ttft", 99))), i, True))
        good.append(Line(name, _xy(of_engine, lambda p: (p.load, p.goodput_rps)), i))
        if (knee := result.knee(name)) is not None and knee.place == "inside":
            rings.append((knee.throughput_tps, knee.latency_s))
    title = f"Throughput and latency; beside each mark its load ({unit})"
    panels = [
        Panel(title, "tokens/s", "end to end, s, median", tuple(curve), tuple(rings)),
        Panel("Time to first token: median, and p99 (thin)", unit, "TTFT, s", (*first, *p99)),
    ]
    if result.slo:
        panels.append(Panel(f"Goodput: {result.slo}", unit, "good requests/s", tuple(good)))
    return tuple(panel for panel in panels if any(line.points for line in panel.lines))


def svg(panel: Panel) -> str:
    """One panel. Texts are escaped; the colours are the variables of the page it stands in."""
    xs = [x for line in panel.lines for x, _, _ in line.points]
    ys = [y for line in panel.lines for _, y, _ in line.points]
    x_axis, y_axis = _Axis.of(xs, _LEFT, WIDTH - _RIGHT - 40, is_log=False), _Axis.of(ys, HEIGHT - _BOTTOM, _TOP)
    parts = [_text(0, 16, panel.title, "llmlab-title")]
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="llmlab-grid"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "llmlab-tick", "end"))
    parts += [
        _text(x_axis.at(tick), HEIGHT - _BOTTOM + 16, f"{tick:g}", "llmlab-tick", "middle") for tick in x_axis.ticks
    ]
    parts.append(_text(WIDTH - _RIGHT, HEIGHT - 8, panel.x_title, "llmlab-tick", "end"))
    parts.append(_text(0, 33, panel.y_title + (", logarithmic" if y_axis.is_log else ""), "llmlab-tick"))
    for line in panel.lines:
        parts += _line(line, x_axis, y_axis)
    for x, y in panel.rings:
        parts.append(f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="9" class="llmlab-ring"/>')
    parts += _names(panel, x_axis, y_axis)
    said = f"{panel.title}: " + "; ".join(
        f"{line.name} {', '.join(f'{x:.3g} {panel.x_title}: {y:.3g}' for x, y, _ in line.points)}"
        for line in panel.lines
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
    return f'<svg {size} role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    # pixels of low and high
    start: float
    end: float
    is_log: bool
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, *, is_log: bool | None = None) -> _Axis:
        """From 0, or, where the values are far apart, logarithmic."""
        highest, lowest = max(values, default=1.0) or 1.0, min((v for v in values if v > 0), default=1.0)
        if is_log is None:
            is_log = min(values, default=0) > 0 and highest / lowest > _LOG_FROM
        if is_log:
            low, high = lowest * 0.7, highest * 1.15
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            ticks = [factor * 10.0**d for d in decades for factor in (1, 2, 5)]
            return cls(low, high, start, end, True, tuple(t for t in ticks if low <= t <= high))
        step = _nice(highest / 4)
        return cls(
            0.0, highest * 1.06, start, end, False, tuple(i * step for i in range(int(highest * 1.06 / step) + 1))
        )

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, just above.

    >>> _nice(0.03), _nice(26), _nice(7)
    (0.05, 50.0, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(step))
    return float(f"{next(f * power for f in (1, 2, 5, 10) if f * power >= step * 0.999):.3g}")


def _xy(points: Sequence[Point], place: Callable[[Point], Place], *, labels: bool = False) -> tuple[XY, ...]:
    """Where complete points lie; those without a figure are left out."""
    found: list[XY] = []
    for point in points:
        x, y = place(point)
        if point.is_complete and x is not None and y is not None:
            found.append((x, y, f"{point.load:g}" if labels else ""))
    return tuple(found)


def _line(line: Line, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    places = [(x_axis.at(x), y_axis.at(y), label) for x, y, label in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    kind = f"llmlab-line llmlab-own{line.index % len(_MARKS)}" + (" llmlab-thin" if line.is_thin else "")
    parts = [f'<polyline points="{path}" class="{kind}"/>']
    for x, y, label in places:
        if not line.is_thin:
            parts.append(_mark(x, y, line.index))
        if label:
            parts.append(_text(x, y + 18, label, "llmlab-tick", "middle"))
    return parts


def _mark(x: float, y: float, index: int) -> str:
    own = f'class="llmlab-mark llmlab-own{index % len(_MARKS)}"'
    shape = _MARKS[index % len(_MARKS)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {own}/>'
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        "triangle": [(0, -5.5), (5, 4), (-5, 4)],
        "diamond": [(0, -6), (6, 0), (0, 6), (-6, 0)],
    }
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])}" {own}/>'


def _names(panel: Panel, x_axis: _Axis, y_axis: _Axis) -> list[str]:
    """A name at the end of each main line, apart from the others."""
    ends = [
        (x_axis.at(line.points[-1][0]), y_axis.at(line.points[-1][1]), line.name)
        for line in panel.lines
        if line.points and not line.is_thin
    ]
    parts: list[str] = []
    taken: list[float] = []
    for x, y, name in sorted(ends, key=lambda end: -end[1]):
        y = min([y - 9, *(other - 15 for other in taken if abs(other - y + 9) < 15)])
        taken.append(y)
        parts.append(
            _text(min(x + 6, WIDTH - 4), max(y, 46), name, "llmlab-name", "start" if x < _LEFT + 120 else "end")
        )
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
