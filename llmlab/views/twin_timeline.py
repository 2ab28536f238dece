"""The frozen picture of the batching timeline, with the geometry of static/timeline_geometry.js; steps on the x axis.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from llmlab.views import twin_paper as ink
from llmlab.views.story import Story
from llmlab.views.twin_paper import BG, GHOST, HIT, INK, INK2, INK3, LINE, SUB, WARN, LegendItem, Paper
from llmlab.views.twin_words import number

# Ascending by rarity: a place that stands for several steps shows the rarest.
NONE, WAITING, DECODE, GROW, PREFILL, RECOMPUTE, LOST = range(7)
NAMES = ("none", "waiting", "decode", "grow", "prefill", "recompute", "lost")
OF_PHASE = (PREFILL, DECODE, RECOMPUTE)
ENDS = {"stop": "finished", "length": "finished", "error": "failed"}
TOP, BUDGET, QUEUE, KV, AXIS = 72, 40, 26, 34, 18
MOST_PLOT = 420
Record = dict[str, Any]


class Row:
    """One request: its phase in each step, and what happened to it as (step, kind, number)."""

    def __init__(self, num_steps: int) -> None:
        self.codes = bytearray(num_steps)
        self.tokens: dict[int, int] = {}  # step -> tokens of its share
        self.marks: list[tuple[int, str, int | None]] = []
        self.waits_from, self.wait_code = -1, WAITING
        self.is_seen = False

    def wait(self, step: int, code: int = WAITING) -> None:
        self.is_seen, self.waits_from, self.wait_code = True, step, code

    def wait_until(self, step: int) -> None:
        if 0 <= self.waits_from < step:
            self.codes[self.waits_from : step] = bytes([self.wait_code]) * (step - self.waits_from)
            self.waits_from = step

    def run(self, step: int, code: int, tokens: int) -> None:
        self.wait_until(step)
        self.is_seen, self.waits_from = True, -1
        self.codes[step], self.tokens[step] = code, tokens

    @property
    def hit(self) -> int | None:
        """Tokens found in the prefix cache when it was first admitted."""
        return self.marks[0][2] if self.marks and self.marks[0][1] == "hit" else None


def rows_of(story: Story) -> list[Row]:
    """The phases of all requests, as static/timeline_phases.js reads them."""
    rows = [Row(len(story.steps)) for _ in story.requests]
    ends = [record["t"] for record in story.steps]

    def arrive(r: int, until: int) -> None:
        arrival = story.requests[r]["arrival"]
        if arrival is not None and (step := bisect_left(ends, arrival, 0, until)) < until:
            rows[r].wait(step)

    for i, record in enumerate(story.steps):
        for r, lost, *_ in record["pre"]:
            rows[r].marks.append((i, "preempted", lost))
            rows[r].wait_until(i)
            rows[r].wait(i, LOST)
        shares = [(r, DECODE, 1) for r in _going_on(record)]
        shares += [(r, OF_PHASE[phase], tokens) for r, phase, tokens, *_ in record["r"]]
        for r, code, tokens in shares:
            if not rows[r].is_seen:
                arrive(r, i)
            rows[r].run(i, code, tokens)
        for r, *_ in record.get("kv", {}).get("a", ()):
            if rows[r].codes[i] == DECODE:
                rows[r].codes[i] = GROW
        for r, tokens in record["hit"]:
            rows[r].marks.append((i, "hit", tokens))
        for r, reason, tokens in record["fin"]:
            rows[r].wait_until(i + 1)
            rows[r].is_seen, rows[r].waits_from = True, -1
            rows[r].marks.append((i, ENDS.get(reason, "aborted"), tokens))
    for r, row in enumerate(rows):
        if not row.is_seen:
            arrive(r, len(ends))
        row.wait_until(len(ends))
    return rows


def _going_on(record: Record) -> list[int]:
    ranges = record["d"]
    return [r for first, n in zip(ranges[::2], ranges[1::2], strict=True) for r in range(first, first + n)]


def draw_timeline(paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> float:
    """The picture and its legend; where it ends."""
    return _Timeline(paper, story, index, x, y, width).draw()


class _Timeline:
    def __init__(self, paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> None:
        self.paper, self.story, self.index, self.x, self.y, self.width = paper, story, index, x, y, width
        self.rows = rows_of(story)
        count = len(self.rows)
        self.is_pixels = count > 48
        self.row_height = (22 if count <= 16 else 12) if not self.is_pixels else 2 if 2 * count <= MOST_PLOT else 1
        self.num_shown = min(count, MOST_PLOT) if self.is_pixels else count
        self.left = x + (64 if self.is_pixels else 138)
        self.plot = width - (64 if self.is_pixels else 138) - (14 if self.is_pixels else 54)
        self.right, self.top = self.left + self.plot, y + TOP
        self.bottom = self.top + self.num_shown * self.row_height
        self.budget = story.head["token_budget"] or max((sum(s["u"]) for s in story.steps), default=1) or 1
        self.slots = self._slots()

    def draw(self) -> float:
        self._budget_strip()
        if self.is_pixels:
            self._pixel_rows()
        else:
            self._shape_rows()
        bottom = self._kv_strip(self._queue_strip(self.bottom + 14))
        self._axis(bottom)
        self._cursor(bottom)
        return self.paper.legend(self._legend(), self.x, bottom + AXIS + 8, self.width)

    # ---- the x axis

    def _at(self, step: float) -> float:
        return self.left + round(self.plot * step / max(1, len(self.story.steps)))

    def _slots(self) -> list[tuple[float, float, int, int]]:
        """Places along the axis (x0, x1, first step, after the last): a step each, or a pixel with the steps in it."""
        n = len(self.story.steps)
        if n <= self.plot:
            return [(self._at(i), max(self._at(i) + 1, self._at(i + 1)), i, i + 1) for i in range(n)]
        columns = int(self.plot)
        edges = [round(n * c / columns) for c in range(columns + 1)]
        return [(self.left + c, self.left + c + 1, edges[c], edges[c + 1]) for c in range(columns)]

    def _axis(self, y: float) -> None:
        paper, steps = self.paper, self.story.steps
        paper.text("step", self.left - 8, y + 14, size=11, align="right", colour=INK2)
        power = 10.0 ** math.floor(math.log10(max(1, len(steps)) / (self.plot / 72)))
        every = max(
            1, int(next(n * power for n in (1, 2, 5, 10) if n * power >= 0.999 * len(steps) / (self.plot / 72)))
        )
        for i, record in enumerate(steps):
            if record["n"] % every == 0:
                paper.box(self._at(i + 0.5), y + 1, 1, 4, LINE)
                paper.text(number(record["n"]), self._at(i + 0.5), y + 14, size=11, align="center", colour=INK2)

    def _cursor(self, bottom: float) -> None:
        """The step of the twin; at the end there is no need to say which."""
        if self.index == len(self.story.steps) - 1:
            return
        x0, x1 = self._at(self.index), max(self._at(self.index) + 2, self._at(self.index + 1))
        self.paper.box(x0, self.y + 8, x1 - x0, bottom - self.y - 8, None, INK)
        words = f"step {self.story.steps[self.index]['n']}"
        wide = self.paper.text_width(words, bold=True) + 12
        left = min(max(self.left, (x0 + x1 - wide) / 2), self.right - wide)
        self.paper.box(left, self.y - 6, wide, 18, INK, radius=3)
        self.paper.text(words, left + wide / 2, self.y + 7, bold=True, align="center", colour=BG)

    # ---- strips

    def _label(self, lines: Sequence[str], y: float) -> None:
        for k, words in enumerate(lines):
            self.paper.text(words, self.left - 8, y + 11 + 13 * k, size=11.5, align="right", colour=INK2)

    def _budget_strip(self) -> None:
        paper, y = self.paper, self.top - 20 - BUDGET
        self._label(("tokens", "per step"), y)
        for x0, x1, first, last in self.slots:
            record = max(self.story.steps[first:last] or [None], key=lambda s: sum(s["u"]) if s else 0)
            if record is None:
                continue
            prefill, decode, recompute = record["u"]
            wide, bottom = max(1, x1 - x0 - (x1 - x0 > 4)), y + BUDGET
            for tokens, colour in ((decode, GHOST), (prefill, INK2), (recompute, None)):
                high = min(bottom - y, max(1, BUDGET * tokens / self.budget) if tokens else 0)
                if colour is not None:
                    paper.box(x0, bottom - high, wide, high, colour)
                elif high:
                    paper.hatch(x0, bottom - high, wide, high, WARN, 4, 1.6)
                    paper.box(x0, bottom - high, wide, high, None, WARN)
                bottom -= high
        paper.box(self.left, y + BUDGET, self.plot, 1, LINE)
        limit = self.story.head["token_budget"]
        if limit:
            paper.dashes(self.left, self.right, y - 0.5, INK, 5, 3)
        words = f"{'budget' if limit else 'at most'} {number(self.budget)}"
        paper.text(words, self.right, y - 4, size=11.5, align="right", colour=INK2)

    def _area(
        self, of: Callable[[Record], float | None], most: float, y: float, h: float, fill: Callable[..., None]
    ) -> None:
        """A filled step for each slot: fill(x, y, w, h)."""
        for x0, x1, first, last in self.slots:
            values = [v for v in map(of, self.story.steps[first:last]) if v is not None]
            high = h * min(1.0, max(values, default=0) / most) if most else 0
            if high:
                fill(x0, y + h - high, x1 - x0, high)

    def _queue_strip(self, y: float) -> float:
        paper, most = self.paper, max((record["nw"] for record in self.story.steps), default=0)
        self._label(("queue", f"max {number(most)}"), y)

        def fill(x: float, top: float, w: float, h: float) -> None:
            paper.box(x, top, w, h, ink.mix(INK3, BG, 0.55))
            paper.box(x, top, w, 1, INK2)

        if most:
            self._area(lambda record: record["nw"], most, y, QUEUE, fill)
        else:
            paper.text("no request ever waited", self.left + 6, y + 17, size=11.5, colour=INK2)
        paper.box(self.left, y + QUEUE, self.plot, 1, LINE)
        return y + QUEUE

    def _kv_strip(self, y: float) -> float:
        head, paper = self.story.head, self.paper
        if head["kind"] == "none":
            return y
        y, is_cells = y + 12, head["kind"] == "cells"
        total = head["num_cells"] if is_cells else head["num_blocks"]
        used = "used" if is_cells else "held"

        def both(record: Record) -> float | None:
            held = record["fig"].get(used)
            return None if held is None else held + (record["fig"].get("cached") or 0)

        most = max((both(record) or 0 for record in self.story.steps), default=0)
        end = _axis_end(most, total)
        self._label((f"KV {'cells' if is_cells else 'blocks'}", number(total) if total else ""), y)
        self._area(both, end, y, KV, lambda x, top, w, h: paper.hatch(x, top, w, h, GHOST, 4, 1))
        self._area(lambda s: s["fig"].get(used), end, y, KV, lambda x, top, w, h: paper.box(x, top, w, h, INK2))
        paper.box(self.left, y + KV, self.plot, 1, LINE)
        if end == total:
            paper.dashes(self.left, self.right, y - 0.5, INK, 5, 3)
        elif total:
            words = f"axis cut at {number(end)} of {number(total)}"
            paper.text(words, self.left + 6, y + 8, size=11, colour=INK2, halo=BG)
        return y + KV

    # ---- rows

    def _shape_rows(self) -> None:
        paper = self.paper
        paper.text("prompt", self.left - 44, self.top - 4, size=11, align="right", colour=INK2)
        if self.story.head["prefix_caching"]:
            paper.text("hit", self.left - 13, self.top - 4, size=11, align="right", colour=HIT)
        for r, row in enumerate(self.rows):
            y = self.top + r * self.row_height
            paper.box(self.left, y, self.plot, self.row_height, BG if r % 2 else SUB)
            self._gutter(r, row, y + self.row_height / 2)
            self._pieces(row, y, ink.owner(r, len(self.rows)))
            for mark in row.marks:
                self._mark(mark, y + self.row_height / 2, BG if r % 2 else SUB)

    def _gutter(self, r: int, row: Row, middle: float) -> None:
        paper, colour = self.paper, ink.owner(r, len(self.rows))
        side, size = min(12, self.row_height - 3), 13 if self.row_height >= 22 else 11
        paper.box(self.x + 8, middle - side / 2, side, side, colour, ink.edge(colour))
        paper.text(self.story.name(r), self.x + 26, middle + size / 3, size=size, bold=True)
        prompt = self.story.requests[r]["prompt"]
        style = {"size": min(11.5, size), "align": "right"}
        paper.text("–" if prompt is None else str(prompt), self.left - 44, middle + 4, colour=INK2, **style)  # type: ignore[arg-type]
        if row.hit:
            paper.text(str(row.hit), self.left - 13, middle + 4, bold=True, colour=HIT, **style)  # type: ignore[arg-type]

    def _pieces(self, row: Row, y: float, colour: str) -> None:
        """Chunks one by one; waiting and decoding as long as they last."""
        start: tuple[float, int, int] | None = None  # x0, code, first step
        for x0, _, first, last in [*self.slots, (self.right, self.right, 0, 0)]:
            code = max(row.codes[first:last], default=NONE)
            code = DECODE if code == GROW else code
            if start is not None and (start[1] != code or code in (PREFILL, RECOMPUTE)):
                self._piece(row, *start, x0, y, colour)
                start = None
            if start is None and code != NONE:
                start = (x0, code, first)
        if start is not None:
            self._piece(row, *start, self.right, y, colour)

    def _piece(self, row: Row, x0: float, code: int, first: int, x1: float, y: float, colour: str) -> None:
        paper, h = self.paper, self.row_height
        middle = y + h / 2
        if code == WAITING:
            paper.dashes(x0, x1, middle, INK3, 1.5, 3, 1.5)
        elif code == LOST:
            paper.dashes(x0 + 8, x1, middle, WARN, 5, 3, 1.5)
        elif code == DECODE:
            paper.box(x0, middle - 3.5, x1 - x0, 7, colour, ink.edge(colour))
            wide = self.plot / max(1, len(self.story.steps))
            dot = ink.mix(colour, ink.text_on(colour), 0.6)
            for i in range(first, first + round((x1 - x0) / wide) if wide >= 5 else first):
                paper.box(self._at(i + 0.5) - 0.75, middle - 0.75, 1.5, 1.5, dot)
        else:
            wide = max(1, x1 - x0 - 0.6 * (x1 - x0 > 3))
            if code == RECOMPUTE:
                paper.box(x0, y + 1.5, wide, h - 3, BG, None)
                paper.hatch(x0, y + 1.5, wide, h - 3, WARN, 4, 1.6)
                paper.box(x0, y + 1.5, wide, h - 3, None, WARN)
                return
            level = (h - 3) * min(1, row.tokens.get(first, 1) / self.budget)
            paper.box(x0, y + 1.5, wide, h - 3, ink.tint(colour))
            paper.box(x0, y + h - 1.5 - level, wide, level, colour)
            paper.box(x0, y + 1.5, wide, h - 3, None, ink.edge(colour))

    def _mark(self, mark: tuple[int, str, int | None], middle: float, ground: str) -> None:
        paper, (step, kind, n) = self.paper, mark
        x0, x1 = self._at(step), self._at(step + 1)
        if kind == "hit":
            at = max(self.left + 6, x0 - 7)
            paper.box(at - 6, middle - 5.5, 12, 11, ground)
            paper.mark("hit", at, middle + 0.5)
        elif kind == "preempted":
            paper.mark("preempted", x0 + 4, middle)
        else:
            high = min(12, self.row_height)
            if kind == "finished":
                paper.box(x1 - 1, middle - high / 2, 4, high, INK)
            else:
                paper.mark(kind, x1 + 1, middle)
            if self.row_height >= 22:
                paper.text(str(n), x1 + 7, middle + 4, size=11.5, colour=INK2, halo=ground)

    def _pixel_rows(self) -> None:
        """Each column shows the rarest phase in it."""
        colours = [BG if name == "none" else ink.PHASES[name] for name in NAMES]
        columns = int(self.plot)
        picture: list[str] = []
        for row in self.rows[: self.num_shown]:
            line = [BG] * columns
            for x0, x1, first, last in self.slots:
                colour = colours[max(row.codes[first:last], default=NONE)]
                for c in range(int(x0 - self.left), min(columns, int(x1 - self.left))):
                    line[c] = colour
            picture += line
        self.paper.pixels(columns, picture, self.left, self.top, 1, self.row_height)
        self.paper.box(self.left - 1, self.top - 1, columns + 2, self.bottom - self.top + 2, None, LINE)
        every = 50 if len(self.rows) >= 200 else 25
        for r in range(0, self.num_shown, every):
            y = self.top + r * self.row_height
            self.paper.text(self.story.name(r), self.left - 6, y + 9, size=11, align="right", colour=INK2)
        if self.num_shown < len(self.rows):
            words = f"{len(self.rows) - self.num_shown} more requests are not shown"
            self.paper.text(words, self.left, self.bottom + 11, size=11, colour=INK2)

    # ---- legend

    def _legend(self) -> list[LegendItem]:
        paper, head, colour = self.paper, self.story.head, ink.OWNERS[0]
        is_preempting = any(record["pre"] for record in self.story.steps)
        if self.is_pixels:
            words = {"grow": "decode, takes a new block", "lost": "waiting after preemption"}
            names = [n for n in NAMES[1:] if is_preempting or n not in ("recompute", "lost")]
            names = [n for n in names if n != "grow" or head["kind"] == "blocks"]
            return [(words.get(n, n), 18, _swatch(paper, ink.PHASES[n])) for n in names]

        def prefill(x: float, y: float) -> None:
            paper.box(x, y, 18, 14, ink.tint(colour), ink.edge(colour))
            paper.box(x + 1, y + 8, 16, 5, colour)

        def recompute(x: float, y: float) -> None:
            paper.hatch(x, y, 18, 14, WARN, 4, 1.6)
            paper.box(x, y, 18, 14, None, WARN)

        def preempted(x: float, y: float) -> None:
            paper.mark("preempted", x + 5, y + 7.5)
            paper.dashes(x + 12, x + 28, y + 7, WARN, 5, 3, 1.5)

        share = "share of budget" if head["token_budget"] else "share of the fullest step"
        items: list[LegendItem] = [
            ("waiting", 26, lambda x, y: paper.dashes(x, x + 26, y + 7, INK3, 1.5, 3, 1.5)),
            (f"prefill, fill = {share}", 18, prefill),
            ("decode, one token", 24, lambda x, y: paper.box(x, y + 3.5, 24, 7, colour, ink.edge(colour))),
        ]
        if is_preempting:
            items += [("recompute", 18, recompute), ("preempted", 28, preempted)]
        if head["prefix_caching"]:
            items.append(("prefix hit", 12, lambda x, y: paper.mark("hit", x + 6, y + 7.5)))
        items.append(("finished, tokens out", 4, lambda x, y: paper.box(x, y + 1, 4, 12, INK)))
        return items


def _swatch(paper: Paper, colour: str) -> Callable[[float, float], None]:
    return lambda x, y: paper.box(x, y + 1, 18, 12, colour)


def _axis_end(most: float, total: int | None) -> float:
    """All of the memory, or a round number above `most` when under a quarter was ever used."""
    if not most or not total or most >= total / 4:
        return total or max(1, most)
    power = 10 ** math.floor(math.log10(1.1 * most))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= 1.1 * most)
