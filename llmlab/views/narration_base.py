"""Events of a step, and Teller: the clauses that a step has with every kind of KV cache. Blocks and cells add theirs.

This file must not know widgets, pages or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmlab.trace import ScheduledRequest, Step
from llmlab.views.figures_base import num_rejected
from llmlab.views.phrases import (
    MAX_NAMES,
    Clause,
    Phrase,
    bold,
    count,
    joined,
    listed,
    number,
    one_or_many,
    plain,
    used,
    who,
)

MAX_PREFILLS = 4  # more are counted, not listed
MAX_RETURNS = 2  # more are told in one sentence
Rows = Sequence[tuple[int, ScheduledRequest]]
Ended = tuple[int, str, str]  # request, its id, reason


class Events(msgspec.Struct):
    """What a step did to requests, which are told by their index."""

    tokens: list[int]  # computed in this step: prefill, decode, recompute
    rows: list[tuple[int, ScheduledRequest]]  # shares of all but those in going_on
    going_on: Sequence[int] = ()  # compute one token more, as in the last step: often hundreds
    preempted: list[list[int]] = []  # [request, blocks or cells it held, tokens it had]
    finished: list[list[Any]] = []  # [request, reason, tokens that came out of it in all]
    hits: list[list[int]] = []  # [request, tokens found in the prefix cache]
    # The first that waits: [request, tokens it needs room for, or None when there is no telling].
    first_waiting: tuple[int, int | None] | None = None
    # Cells that nobody holds any more, by the request that let go of them last.
    emptied: dict[int, int] = {}


class Teller:
    """Makes the clauses of one step."""

    memory: ClassVar[str]  # what a piece of the KV cache is called
    noun: ClassVar[str] = "request"

    def __init__(self, step: Step, events: Events, name: Callable[[int], str], head: Mapping[str, Any]) -> None:
        self.step, self.events, self.name, self.head = step, events, name, head
        self.hits: dict[int, int] = dict(events.hits)  # type: ignore[arg-type]
        self.budget_tokens: int | None = step.token_budget or head["token_budget"]

    def who(self, requests: Sequence[int]) -> Phrase:
        return who(requests, self.name, self.noun)

    def budget(self) -> Iterator[Clause]:
        if self.budget_tokens:
            yield used(self.step.num_scheduled_tokens, self.budget_tokens)

    def preempted(self) -> Iterator[Clause]:
        lost = self.events.preempted
        if not lost:
            return
        is_one, num_held = len(lost) == 1, sum(held for _, held, _ in lost)
        its = "its" if is_one else "their"
        gives = f" and {'gives' if is_one else 'give'} back {its} {count(num_held, self.memory)}" if num_held else ""
        # A trace that begins with it does not tell how far it was.
        is_known = all(num_tokens for _, _, num_tokens in lost)
        tokens = count(sum(num_tokens for _, _, num_tokens in lost), "token") if is_known else "tokens"
        yield joined(
            [
                "No room: " if self.step.kv is None else f"No free {self.memory}: ",
                self.who([request for request, _, _ in lost]),
                f" {'is' if is_one else 'are'} preempted{gives}; {its} {tokens} must be computed again.",
            ]
        )

    def returning(self) -> Iterator[Clause]:
        """Those that were preempted, and have their place again."""
        if not (self.events.tokens[2] or self.hits):
            return
        all_rows = [(request, row) for request, row in self.events.rows if self._returns(request, row)]
        going_on = [(r, row) for r, row in all_rows if row.num_computed_tokens > self.hits.get(r, 0)]
        back = [pair for pair in all_rows if pair not in going_on]
        for rows in [[pair] for pair in back] if len(back) <= MAX_RETURNS else [back]:
            verb = one_or_many(len(rows), "returns", "return")
            yield joined([self.who([request for request, _ in rows]), f" {verb}: {self._recomputed(rows)}."])
        if going_on:
            tokens = count(sum(row.num_tokens for _, row in going_on), "token")
            verb = one_or_many(len(going_on), "recomputes", "recompute")
            yield joined([self.who([request for request, _ in going_on]), f" {verb} {tokens} more."])

    def prefill(self) -> Iterator[Clause]:
        if not self.events.tokens[0]:
            return
        rows = self.prefilling()
        if len(rows) > MAX_PREFILLS:
            sizes = {row.num_tokens for _, row in rows}
            tokens = count(sum(row.num_tokens for _, row in rows), "token")
            each = f"{count(min(sizes), 'token')} each" if len(sizes) == 1 else f"{tokens} together"
            yield f"{count(len(rows), self.noun)} prefill {each}."
        elif rows:
            yield joined(["Prefill: ", listed([self._chunk(request, row) for request, row in rows]), "."])

    def prefilling(self) -> Rows:
        return [(request, row) for request, row in self.events.rows if row.phase == "prefill"]

    def decoding(self) -> Rows:
        """Those beside going_on that compute one token more; who drafts is apart."""
        return [(r, row) for r, row in self.events.rows if row.phase == "decode" and not row.num_draft_tokens]

    def came_to_an_end(self) -> list[Ended]:
        """Requests that nobody broke off."""
        pairs = zip(self.step.finished, self.events.finished, strict=True)
        return [(request, name, reason) for name, (request, reason, _) in pairs if reason in ("stop", "length")]

    def ended(self, done: Sequence[Ended], rest: str) -> Iterator[Clause]:
        """ "r0 and r1 finish (length)", and the rest of the sentence."""
        if not done:
            return
        reasons = list(dict.fromkeys(reason for _, _, reason in done))
        verb = one_or_many(len(done), "finishes", "finish")
        names = self.who([request for request, _, _ in done])
        if len(reasons) == 1:
            yield joined([names, f" {verb} ({reasons[0]}){rest}."])
        elif len(done) <= MAX_NAMES:
            each = [joined([bold(self.name(request)), f" ({reason})"]) for request, _, reason in done]
            yield joined([listed(each), f" finish{rest}."])
        else:
            numbers = ", ".join(f"{sum(each == reason for _, _, each in done)} {reason}" for reason in reasons)
            yield joined([names, f" finish ({numbers}){rest}."])

    def broken_off(self, freed: Container[str], aftermath: str) -> Iterator[Clause]:
        """Requests that somebody or something ended; those that freed KV in this step have an aftermath."""
        for request_id, (request, reason, num_output) in zip(self.step.finished, self.events.finished, strict=True):
            if reason not in ("stop", "length"):
                verb = "fails" if reason == "error" else "is stopped"
                when = f"after {count(num_output, 'token')}" if num_output else "before its first token"
                after = aftermath if request_id in freed else ""
                yield joined([bold(self.name(request)), f" {verb} {when}{after}."])

    def drafts(self) -> Iterator[Clause]:
        rows = [(request, row) for request, row in self.events.rows if row.num_draft_tokens]
        if not rows:
            return
        drafted = sum(row.num_draft_tokens for _, row in rows)
        accepted = drafted - sum(num_rejected(self.step, row.request_id, row.num_draft_tokens) for _, row in rows)
        are = "none is" if not accepted else "1 is" if accepted == 1 else f"{number(accepted)} are"
        verb = one_or_many(len(rows), "drafts", "draft")
        who_drafts = self.who([request for request, _ in rows])
        yield joined([who_drafts, f" {verb} {count(drafted, 'token')}, {are} accepted{self.handed_out(rows)}."])

    def waiting(self) -> Iterator[Clause]:
        num_waiting, first = self.step.num_waiting, self.events.first_waiting
        if not num_waiting:
            return
        limit = self.head["max_num_seqs"]
        reason: Clause = ""
        if limit and max(self.step.num_running, len(self.step.scheduled)) >= limit:
            reason = f": the running limit of {number(limit)} is reached"
        elif self.budget_tokens and self.step.num_scheduled_tokens >= self.budget_tokens:
            reason = ": the token budget is used up"
        elif first is not None and first[1] is not None and (needed := self.not_fitting(first[1])):
            whose = plain("its") if num_waiting == 1 else joined([bold(self.name(first[0])), "'s"])
            reason = joined([": no room for ", whose, f" {count(needed, self.memory)}"])
        if num_waiting == 1 and first is not None:
            yield joined([bold(self.name(first[0])), " waits", reason, "."])
        else:
            yield joined([f"{number(num_waiting)} {one_or_many(num_waiting, 'waits', 'wait')}", reason, "."])

    # ---- what blocks and cells say in their own way

    def not_fitting(self, num_tokens: int) -> int:
        """Blocks or cells that this many tokens need, when fewer are free; 0 when there is room, or no telling."""
        return 0

    def handed_out(self, rows: Rows) -> str:
        """Blocks that these requests got to go on: "; block 14 handed out"."""
        return ""

    # ---- parts

    def _returns(self, request: int, row: ScheduledRequest) -> bool:
        # All of it may be in the prefix cache: then it goes on decoding.
        return row.phase == "recompute" or (bool(row.num_output_tokens) and request in self.hits)

    def _recomputed(self, rows: Rows) -> str:
        found = sum(self.hits.get(request, 0) for request, _ in rows)
        num_tokens = sum(row.num_tokens for _, row in rows if row.phase == "recompute")
        hit = f"{count(found, 'token')} found in the prefix cache, " if found else ""
        return f"{hit}{count(num_tokens, 'token') if num_tokens else 'nothing'} recomputed"

    def _chunk(self, request: int, row: ScheduledRequest) -> Phrase:
        is_first = row.num_computed_tokens == self.hits.get(request, 0)
        is_last = row.num_computed_tokens + row.num_tokens >= row.num_prompt_tokens
        of_prompt = "" if is_first and is_last else f" (a chunk of {number(row.num_prompt_tokens)})"
        return joined([bold(self.name(request)), f" {count(row.num_tokens, 'token')}{of_prompt}"])
