"""Quotas and Account: how much a student may have, and what he has had.

This file must not know HTTP or engines. One thread, that of the event loop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from llmlab.classroom.register import Person
from llmlab.serve.failures import ApiError

# What a token counts when it is said who has had least: one that is read costs an engine less than one that is written.
# Source: Sheng et al., Fairness in Serving Large Language Models (OSDI 2024), section 4.1, w_p = 1 and w_q = 2.
PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 2
GRAIN_S = 0.25  # tokens that came so close together are one entry of a window
# What a student may have looked up in the vocabulary in a minute, in bytes of the questions. His pictures ask for the
# texts of his prompts; more than that would hold up the engine, which answers between two steps.
LOOKED_UP_BYTES = 2**20
RETRY_S = 2  # who has too many in flight knows best when one of them ends


@dataclass(frozen=True, slots=True)
class Quotas:
    """Of each student. None: no limit. Tokens are those of prompts and of answers."""

    in_flight: int = 8
    tokens_per_minute: int | None = None
    tokens_per_hour: int | None = None


class Window:
    """Tokens of the last `span_s` seconds, with a limit on them."""

    def __init__(self, name: str, span_s: float, limit: int) -> None:
        self.name, self.span_s, self.limit = name, span_s, limit
        self._entries: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, count: int, now_s: float) -> None:
        if self._entries and now_s - self._entries[-1][0] < GRAIN_S:
            at_s, before = self._entries.pop()
            self._entries.append((at_s, before + count))
        else:
            self._entries.append((now_s, count))
        self._sum += count

    def used(self, now_s: float) -> int:
        while self._entries and self._entries[0][0] <= now_s - self.span_s:
            self._sum -= self._entries.popleft()[1]
        return self._sum

    def free_in_s(self, now_s: float) -> float:
        """Seconds until fewer than `limit` tokens are in it; 0 when so few are."""
        over = self.used(now_s) - self.limit
        for at_s, count in self._entries:
            if over < 0:
                break
            over -= count
            if over < 0:
                return at_s + self.span_s - now_s
        return 0.0


class Account:
    """One person. `had`: weighted tokens, by which turns are given; the other figures are plain counts."""

    def __init__(self, person: Person, quotas: Quotas) -> None:
        self.person, self.quotas = person, quotas
        self.had = 0.0
        self.num_on = self.num_waiting = 0  # answers: on the engine, and waiting for their turn
        self.num_asked = self.num_refused = 0  # answers
        self.num_prompt_tokens = self.num_output_tokens = 0
        self.num_watching = 0  # streams of the batch
        self.seen_s: float | None = None
        self.looked_up = Window("looked_up", 60.0, LOOKED_UP_BYTES)
        self.windows = [
            Window(name, span_s, limit)
            for name, span_s, limit in (
                ("tokens_per_minute", 60.0, quotas.tokens_per_minute),
                ("tokens_per_hour", 3600.0, quotas.tokens_per_hour),
            )
            if limit is not None and not person.is_lecturer
        ]

    @property
    def num_in_flight(self) -> int:
        return self.num_on + self.num_waiting

    def check(self, count: int, now_s: float | None = None) -> None:
        """Whether `count` more answers are within all quotas. Raises: ApiError (429) that says which one is used up."""
        now_s = time.monotonic() if now_s is None else now_s
        most = self.quotas.in_flight
        if count > most and not self.person.is_lecturer:
            raise ApiError(
                400, f"This request asks for {count} answers at once; a student has {most} in flight. Send fewer.",
                param="n",
            )  # fmt: skip
        for after_s, quota, sentence in self._refusals(count, now_s):
            self.num_refused += count
            raise _refusal(quota, sentence, after_s)
        self.num_asked += count

    def look_up(self, num_bytes: int, now_s: float | None = None) -> None:
        """A question about the vocabulary. Raises: ApiError (429) when there were too many of them."""
        now_s = time.monotonic() if now_s is None else now_s
        if not self.person.is_lecturer and (after_s := self.looked_up.free_in_s(now_s)):
            raise _refusal(self.looked_up.name, f"You had {LOOKED_UP_BYTES} bytes looked up in a minute.", after_s)
        self.looked_up.add(num_bytes, now_s)

    def note_tokens(self, num_prompt: int, num_output: int, now_s: float | None = None) -> None:
        """Tokens that were read and written for him."""
        now_s = time.monotonic() if now_s is None else now_s
        self.num_prompt_tokens += num_prompt
        self.num_output_tokens += num_output
        self.had += PROMPT_WEIGHT * num_prompt + OUTPUT_WEIGHT * num_output
        for window in self.windows:
            window.add(num_prompt + num_output, now_s)

    def _refusals(self, count: int, now_s: float) -> Iterator[tuple[float, str, str]]:
        """Seconds until it is free again, the name of the quota, a sentence."""
        if self.person.is_lecturer:
            return
        most = self.quotas.in_flight
        if self.num_in_flight + count > most:
            yield RETRY_S, "in_flight", f"You have {self.num_in_flight} answers in flight, the quota is {most}."
        for window in self.windows:
            if after_s := window.free_in_s(now_s):
                span = window.name.rpartition("_")[2]
                used = window.used(now_s)
                yield after_s, window.name, f"You had {used} tokens in the last {span}, the quota is {window.limit}."


def _refusal(quota: str, sentence: str, after_s: float) -> ApiError:
    whole_s = max(1, math.ceil(after_s))
    return ApiError(
        429, f"{sentence} Try again in {whole_s} s.", param=quota, code="quota_exceeded",
        headers={"Retry-After": str(whole_s)},
    )  # fmt: skip


class Accounts:
    """Of all who ever asked since the server began."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._of: dict[Person, Account] = {}

    def of(self, person: Person) -> Account:
        """His account, and he is there now."""
        if (account := self._of.get(person)) is None:
            account = self._of[person] = Account(person, self._quotas)
        account.seen_s = time.monotonic()
        return account

    def all(self) -> list[Account]:
        return list(self._of.values())
