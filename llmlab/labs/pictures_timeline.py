"""The two pictures of a plan that breaks a rule: the steps up to it, yours and expected.

One row a request, one column a step. Plain values, like all pictures; drawn by drawing_timeline.py. This file must not
know any policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmlab.labs.description import Picture
from llmlab.labs.sentences import say

# Steps that a picture shows: those before the last one explain it, older ones do not.
NUM_SHOWN = 16
# Requests that do nothing but wait in these steps: so many have a row, the others are counted.
NUM_WAITING_SHOWN = 3
SIGNS = {"prefill": "P", "decode": "d", "recompute": "R"}
WAITS, LOST, NOBODY = ".", "x", " "


@dataclass(frozen=True, slots=True)
class Column:
    """One step. `shares`: request -> (phase, num_tokens). `waiting`: who waits; `preempted`: who lost its place."""

    shares: Mapping[str, Sequence[Any]]
    waiting: Sequence[str]
    preempted: Sequence[str] = ()

    @property
    def num_tokens(self) -> int:
        return sum(share[1] for share in self.shares.values())

    def sign(self, request_id: str) -> str:
        """One letter for what a request does in this step."""
        if request_id in self.preempted:
            return LOST
        if request_id in self.shares:
            return SIGNS[self.shares[request_id][0]]
        return WAITS if request_id in self.waiting else NOBODY


@dataclass(frozen=True, slots=True)
class Timeline:
    """Steps from `first` on; `requests` in order of arrival."""

    requests: Sequence[str]
    columns: Sequence[Column]
    first: int
    token_budget: int
    num_more: int


def timeline_picture(
    yours: Sequence[Column], expected: Sequence[Column], *, token_budget: int, sentence: str
) -> Picture:
    """Compared in the last step of `yours`."""
    step = len(yours) - 1
    first = max(0, step + 1 - NUM_SHOWN)
    sides = [list(side[first : step + 1]) for side in (yours, expected)]
    columns = [column for side in sides for column in side]
    active = {name for column in columns for name in (*column.shares, *column.preempted)}
    named = dict.fromkeys(name for column in columns for name in (*column.shares, *column.preempted, *column.waiting))
    only_waiting = [name for name in named if name not in active]
    return {
        "kind": "timeline",
        "yours": [asdict(column) for column in sides[0]],
        "expected": [asdict(column) for column in sides[1]],
        "requests": [name for name in named if name not in only_waiting[NUM_WAITING_SHOWN:]],
        "num_more": len(only_waiting[NUM_WAITING_SHOWN:]),
        "first": first,
        "token_budget": token_budget,
        "call": say("picture_step", step=step),
        "sentence": sentence,
    }


def sides_of(picture: Picture) -> tuple[Timeline, Timeline]:
    yours, expected = (
        Timeline(
            picture["requests"],
            [Column(**one) for one in picture[side]],
            picture["first"],
            picture["token_budget"],
            picture["num_more"],
        )
        for side in ("yours", "expected")
    )
    return yours, expected


def differing(picture: Picture) -> list[str]:
    """Requests that do something else in the last step, in order."""
    yours, expected = sides_of(picture)
    if len(yours.columns) != len(expected.columns) or not yours.columns:
        return []
    mine, theirs = yours.columns[-1], expected.columns[-1]

    def does(column: Column, name: str) -> tuple[str, object]:
        share = column.shares.get(name)
        return column.sign(name), share[1] if share else None

    return [name for name in yours.requests if does(mine, name) != does(theirs, name)]


def text(picture: Picture) -> str:
    """For a terminal: a row a request, a letter a step; who differs in the last step has a ! and a number of tokens."""
    wrong = set(differing(picture))
    lines = [say("picture_in", call=picture["call"]) + ":"]
    for name, side in zip((say("yours"), say("expected")), sides_of(picture), strict=True):
        tokens = " ".join(str(column.num_tokens) for column in side.columns)
        lines.append(f"  {name:9} {say('picture_tokens', first=side.first, budget=side.token_budget, tokens=tokens)}")
        for request in side.requests:
            signs = "".join(column.sign(request) for column in side.columns)
            share = side.columns[-1].shares.get(request) if side.columns else None
            number = f" !{share[1] if share else '–'}" if request in wrong else ""
            lines.append(f"    {request:>5} {signs}{number}")
        if side.num_more:
            lines.append(f"    {say('picture_more_wait', count=side.num_more)}")
    return "\n".join([*lines, f"  {say('picture_signs')}", f"  {picture['sentence']}"])
