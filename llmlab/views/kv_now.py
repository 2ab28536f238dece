"""The KV cache after a step of a story, rebuilt from its records: for the frozen twin, and for views that come late.

The same as static/kv_state.js, step by step; tests compare both with the trace. This file must not draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmlab.trace.runs import runs
from llmlab.views.shares import requests_in
from llmlab.views.story import PHASES, Story

DECODE = PHASES["decode"]
# [request, phase, tokens, computed before]
Row = list[int]


class Memory:
    """What both kinds of cache have: tokens of each request whose KV exists, and the shares of the last step."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.head = head
        self._tokens: dict[int, int] = {}
        self._going_on: list[int] = []  # who computed one token more in each of the last steps, as ranges
        self._num_alike = 0  # of these steps: they are not in _tokens yet
        self._ended: dict[int, int] = {}  # tokens of those that ended in the last step
        self._last: Mapping[str, Any] = {"r": []}
        if "start" in head:
            self.step({"kv": head["start"], "r": head["start"].get("r", []), "pre": [], "fin": []})

    @property
    def tokens(self) -> dict[int, int]:
        """Up to date; settled once for all steps in which the same requests went on."""
        if self._num_alike:
            for request in requests_in(self._going_on):
                self._tokens[request] = self._tokens.get(request, 0) + self._num_alike
            self._num_alike = 0
        return self._tokens

    def step(self, record: Mapping[str, Any]) -> None:
        going_on = record.get("d", [])
        if going_on != self._going_on or record["pre"]:
            self._regroup(going_on, record["pre"])
        self._num_alike += 1
        for request, _, number, computed in record["r"]:  # none of them goes on: nothing has to be settled
            self._tokens[request] = computed + number
        self._begin()
        if "kv" in record:
            self.change(record["kv"])
        self._last = record
        self._ended = {}
        if record["fin"]:
            tokens = self.tokens
            self._ended = {request: tokens.pop(request) for request, *_ in record["fin"] if request in tokens}

    def _regroup(self, going_on: list[int], preempted: Sequence[Sequence[int]]) -> None:
        """Others go on from this step on. A preempted request may be among them: back in the same step."""
        tokens, self._going_on = self.tokens, going_on
        back = set(requests_in(going_on)) if preempted else ()
        for request, *_ in preempted:
            if request not in back:
                tokens.pop(request, None)

    @property
    def rows(self) -> list[Row]:
        """Made when asked for: of most steps nobody asks."""
        now = self.tokens | self._ended
        return sorted([*([r, DECODE, 1, now[r] - 1] for r in requests_in(self._last.get("d", []))), *self._last["r"]])

    def snapshot(self) -> dict[str, Any]:
        """This state as `head.start`: a change of an empty cache."""
        return {"r": [[request, DECODE, 0, number] for request, number in self.tokens.items()]}

    def change(self, kv: Mapping[str, Any]) -> None:
        """One delta of the cache."""

    def _begin(self) -> None:
        """Forget what only the last step did."""


class BlocksNow(Memory):
    """Block tables and hashes."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.tables: dict[int, list[int]] = {}
        self.holders: dict[int, list[int]] = {}  # block -> requests
        self.groups: dict[int, int] = {}  # block -> KV cache group, where the layers keep KV in different ways
        self.cached: set[int] = set()
        self.next_out: Sequence[int] = ()
        self.fresh: set[int] = set()
        self.evicted: set[int] = set()
        super().__init__(head)

    def _begin(self) -> None:
        self.fresh, self.evicted = set(), set()

    def logical(self, request: int, block: int) -> int:
        """The place of a block in the table of a request; each group has a table of its own."""
        table = self.tables[request]
        before = table[: table.index(block)]
        return sum(self.groups.get(other) == self.groups.get(block) for other in before) if self.groups else len(before)

    def change(self, kv: Mapping[str, Any]) -> None:
        for request, *some in kv.get("f", ()):
            table = self.tables.pop(request, [])
            blocks = some[0] if some else table
            gone = set(blocks)
            left = [block for block in table if block not in gone]
            if left:
                self.tables[request] = left
            for block in blocks:
                holders = self.holders.pop(block, ())
                if len(holders) > 1:
                    self.holders[block] = [other for other in holders if other != request]
        self.evicted = set(kv.get("e", ()))
        self.cached -= self.evicted
        groups = dict(kv.get("g", ()))
        for request, blocks in kv.get("a", ()):
            self.groups.update(zip(blocks, groups.get(request, ()), strict=False))
            self.tables.setdefault(request, []).extend(blocks)
            for block in blocks:
                if block in self.holders:
                    self.holders[block].append(request)
                else:
                    self.holders[block] = [request]
                    self.fresh.add(block)
        self.cached.update(kv.get("c", ()))
        self.next_out = kv.get("h", ())

    def fill(self, block: int) -> int:
        """Tokens written in it, 0 to block_size: of the holder that wrote most."""
        size = self.head["block_size"] or 0
        written = [self.tokens.get(r, 0) - self.logical(r, block) * size for r in self.holders.get(block, ())]
        return max(0, min(size, max(written, default=0)))

    def snapshot(self) -> dict[str, Any]:
        tables = [[request, list(table)] for request, table in self.tables.items()]
        groups = [[request, [self.groups.get(b, 0) for b in table]] for request, table in self.tables.items()]
        told = {"g": groups} if self.groups else {}
        return {**super().snapshot(), **told, "a": tables, "c": sorted(self.cached), "h": list(self.next_out)}


class CellsNow(Memory):
    """llama.cpp's cells: the position in each, and who holds it."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.position: dict[int, int] = {}
        self.holders: dict[int, list[int]] = {}  # cell -> requests, ascending
        self.attended = 0
        self.ring_head: int | None = None
        self.written: set[int] = set()
        super().__init__(head)

    def _begin(self) -> None:
        self.written = set()

    def change(self, kv: Mapping[str, Any]) -> None:
        emptied = set()
        for request, first, number in kv.get("f", ()):
            for cell in range(first, first + number):
                self.holders[cell] = [other for other in self.holders.get(cell, ()) if other != request]
                emptied.add(cell)
        later = []  # a cell may be shared in the delta that writes it
        for run in kv.get("s", ()):
            if run[1] in self.position:
                self._share(run)
            else:
                later.append(run)
        for cell in emptied:
            if not self.holders[cell]:
                del self.holders[cell]
                self.position.pop(cell, None)
        for request, first, position, number in kv.get("w", ()):
            for cell in range(first, first + number):
                self.position[cell] = position + cell - first
                self._hold(cell, request)
                self.written.add(cell)
        for run in later:
            self._share(run)
        self.attended, self.ring_head = kv["att"], kv.get("head")

    def _share(self, run: Sequence[int]) -> None:
        request, first, number = run
        for cell in range(first, first + number):
            self._hold(cell, request)

    def _hold(self, cell: int, request: int) -> None:
        if request not in self.holders.get(cell, ()):
            self.holders[cell] = sorted([*self.holders.get(cell, ()), request])

    @property
    def end(self) -> int:
        """The cell after the last one that is used."""
        return max(self.holders, default=-1) + 1

    def runs(self) -> Iterable[tuple[int, int, int, list[int]]]:
        """(first cell, first position, length, holders) of neighbouring cells with the same holders."""
        cells = sorted(self.holders)
        first = 0
        for i in range(1, len(cells) + 1):
            if i == len(cells) or not self._goes_on(cells[i - 1], cells[i]):
                start = cells[first]
                yield start, self.position[start], i - first, self.holders[start]
                first = i

    def _goes_on(self, cell: int, following: int) -> bool:
        is_next = following == cell + 1 and self.position[following] == self.position[cell] + 1
        return is_next and self.holders[following] == self.holders[cell]

    def snapshot(self) -> dict[str, Any]:
        found = list(self.runs())
        written = [[holders[0], first, position, number] for first, position, number, holders in found]
        shared: dict[int, list[int]] = {}
        for first, _, number, holders in found:
            for request in holders[1:]:
                shared.setdefault(request, []).extend(range(first, first + number))
        told = [[request, *run] for request, cells in shared.items() for run in runs(cells)]
        return {**super().snapshot(), "w": written, "s": told, "att": self.attended, "head": self.ring_head}


def empty_kv(head: Mapping[str, Any]) -> Memory:
    """The cache before the first step of a story."""
    kinds: dict[str, type[Memory]] = {"blocks": BlocksNow, "cells": CellsNow}
    return kinds.get(head["kind"], Memory)(head)


def kv_after(story: Story, index: int) -> Memory:
    """The cache after step `index` of the story, counted from its first."""
    state = empty_kv(story.head)
    for record in story.steps[: index + 1]:
        state.step(record)
    return state
