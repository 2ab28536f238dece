"""Which phase each request was in, step by step, as static/timeline_phases.js reads it. This file must not draw."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from llmlab.views.story import Story

# Ascending by rarity: a place that stands for several steps shows the rarest.
NONE, WAITING, DECODE, GROW, PREFILL, RECOMPUTE, LOST = range(7)
NAMES = ("none", "waiting", "decode", "grow", "prefill", "recompute", "lost")
OF_PHASE = (PREFILL, DECODE, RECOMPUTE)
ENDS = {"stop": "finished", "length": "finished", "error": "failed"}
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
