"""Which phase each request was in, step by step, as static/timeline_phases.js reads it. This file must not draw."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from llmlab.views.shares import requests_in
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
        self.tokens: dict[int, int] = {}  # step -> tokens of its share, of a chunk
        self.marks: list[tuple[int, str, int | None]] = []
        self.waits_from, self.wait_code = -1, WAITING
        self.is_seen = False

    def wait(self, step: int, code: int = WAITING) -> None:
        self.is_seen, self.waits_from, self.wait_code = True, step, code

    def wait_until(self, step: int) -> None:
        if 0 <= self.waits_from < step:
            self.codes[self.waits_from : step] = bytes([self.wait_code]) * (step - self.waits_from)
            self.waits_from = step

    def go(self, step: int) -> None:
        """It waits no more."""
        self.wait_until(step)
        self.is_seen, self.waits_from = True, -1

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

    def go(r: int, step: int) -> None:
        if not rows[r].is_seen:
            arrive(r, step)
        rows[r].go(step)

    # The same requests decode in many steps one after the other: they are filled in together.
    decoding: list[int] = []
    decoding_from = 0
    grown: list[tuple[int, int]] = []

    def decode_until(step: int) -> None:
        for r in requests_in(decoding):
            rows[r].codes[decoding_from:step] = bytes([DECODE]) * (step - decoding_from)

    for i, record in enumerate(story.steps):
        for r, lost, *_ in record["pre"]:
            rows[r].marks.append((i, "preempted", lost))
            rows[r].wait_until(i)
            rows[r].wait(i, LOST)
        if record["d"] != decoding or record["pre"]:
            decode_until(i)
            decoding, decoding_from = record["d"], i
            for r in requests_in(decoding):
                go(r, i)
        for r, phase, tokens, *_ in record["r"]:
            go(r, i)
            rows[r].codes[i], rows[r].tokens[i] = OF_PHASE[phase], tokens
        grown += [(r, i) for r, *_ in record.get("kv", {}).get("a", ())]
        for r, tokens in record["hit"]:
            rows[r].marks.append((i, "hit", tokens))
        for r, reason, tokens in record["fin"]:
            rows[r].wait_until(i + 1)
            rows[r].is_seen, rows[r].waits_from = True, -1
            rows[r].marks.append((i, ENDS.get(reason, "aborted"), tokens))
    decode_until(len(ends))
    for r, i in grown:
        if rows[r].codes[i] == DECODE:
            rows[r].codes[i] = GROW
    for r, row in enumerate(rows):
        if not row.is_seen:
            arrive(r, len(ends))
        row.wait_until(len(ends))
    return rows
