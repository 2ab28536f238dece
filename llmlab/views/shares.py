"""Shares: who of a step goes on decoding as in the step before, and the shares of all others.

In most steps all go on, in the same order: then whole lists are compared, and no request is looked at alone.
This file must not know widgets, pages or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import add

from llmlab.trace import ScheduledRequest, Step
from llmlab.views.figures import KvFigures

Rows = list[tuple[int, ScheduledRequest]]


class Shares:
    """Asked once a step, in order, before the figures go on. `at`: the indexes of requests, which are new or known."""

    def __init__(self, at: Callable[[Sequence[str]], list[int]], figures: KvFigures) -> None:
        self._at, self._figures = at, figures
        # Who was scheduled in the last step, in order, and the tokens that each had after it.
        self._ids: list[str] = []
        self._indexes: list[int] = []
        self._num_tokens: list[int] = []
        self._gone: list[str] = []  # those of them that ended or lost their place in it
        self._are_all_decoding = False  # none of them was told apart
        # Had drafts in the last step: what was rejected is told by the next share, so it is written out.
        self._drafted: set[int] = set()
        self._last_going_on: list[int] = []
        self.going_on: list[int] = []  # ascending
        self.ranges: list[int] = []  # the same as [first, how many, ...]

    def of(self, step: Step) -> Rows:
        """The shares of all but those that go on with one token more; from now on `going_on` holds these."""
        # Hot: vLLM runs hundreds of requests. No object is made for a request that goes on, or the garbage collector
        # looks at the whole process in each step.
        rows = step.scheduled
        ids, computed = [row.request_id for row in rows], [row.num_computed_tokens for row in rows]
        num_tokens = [row.num_tokens for row in rows]
        if self._gone:
            self._let_go(self._gone)
        if step.finished and ids[: len(self._ids)] != self._ids:  # some ended before they were scheduled again
            self._let_go(step.finished)
        num_alike = 0 if step.preempted else self._num_alike(rows, ids, computed, num_tokens)
        indexes = self.indexes(ids)
        going_on: list[int] = indexes
        apart: Rows = []
        if num_alike < len(rows) or self._drafted:
            going_on, apart = self._told_apart(rows, indexes, num_alike)
        if going_on != self._last_going_on:
            self._last_going_on, self.going_on = going_on, sorted(going_on)
            self.ranges = ranges(self.going_on)
        self._ids, self._indexes, self._num_tokens = ids, indexes, list(map(add, computed, num_tokens))
        self._are_all_decoding = not apart
        self._gone = [*step.finished, *step.preempted]
        return apart

    def indexes(self, request_ids: list[str]) -> list[int]:
        """Mostly these are those of the last step, perhaps with new ones behind them: only these are looked up."""
        if request_ids == self._ids:
            return self._indexes
        number = len(self._ids)
        if request_ids[:number] == self._ids:
            return self._indexes + self._at(request_ids[number:])
        return self._at(request_ids)

    def _num_alike(
        self, rows: Sequence[ScheduledRequest], ids: list[str], computed: list[int], num_tokens: list[int]
    ) -> int:
        """How many of the rows, from the first on, are those of the last step, when all of them go on; else 0."""
        number = len(self._ids)
        if ids[:number] != self._ids or computed[:number] != self._num_tokens or num_tokens[:number].count(1) < number:
            return 0
        if self._are_all_decoding:  # who has decoded, and has one token more, decodes
            return number
        return number if [row.phase for row in rows[:number]].count("decode") == number else 0

    def _told_apart(
        self, rows: Sequence[ScheduledRequest], indexes: list[int], num_alike: int
    ) -> tuple[list[int], Rows]:
        """Who goes on, and the shares of the others; of the first `num_alike` it is known that they go on."""
        ahead, num_steps = self._figures.ahead.get, self._figures.num_steps
        going_on = indexes[:num_alike] + [
            index
            for index, row in zip(indexes[num_alike:], rows[num_alike:], strict=True)
            if row.num_tokens == 1
            and row.phase == "decode"
            and ahead(row.request_id) == row.num_computed_tokens - num_steps
        ]
        if self._drafted:
            going_on, num_alike = [index for index in going_on if index not in self._drafted], 0
        goes_on = set(going_on[num_alike:])
        others = zip(indexes[num_alike:], rows[num_alike:], strict=True)
        apart = [(index, row) for index, row in others if index not in goes_on]
        self._drafted = {index for index, row in apart if row.num_draft_tokens}
        return going_on, apart

    def _let_go(self, gone: Iterable[str]) -> None:
        ids, indexes, num_tokens = [*self._ids], [*self._indexes], [*self._num_tokens]
        for request_id in gone:
            if request_id in ids:
                place = ids.index(request_id)
                del ids[place], indexes[place], num_tokens[place]
        self._ids, self._indexes, self._num_tokens = ids, indexes, num_tokens


def requests_in(ranges: Sequence[int]) -> list[int]:
    """Who goes on, from the ranges of a record.

    >>> requests_in([0, 3, 5, 1])
    [0, 1, 2, 5]
    """
    return [r for i in range(0, len(ranges), 2) for r in range(ranges[i], ranges[i] + ranges[i + 1])]


def ranges(indexes: Sequence[int]) -> list[int]:
    """Ascending numbers as [first, how many, first, how many, ...].

    >>> ranges([0, 1, 2, 5])
    [0, 3, 5, 1]
    """
    if not indexes:
        return []
    breaks = [place for place, (one, other) in enumerate(pairwise(indexes), start=1) if other != one + 1]
    return [told for first, end in pairwise([0, *breaks, len(indexes)]) for told in (indexes[first], end - first)]
