"""Account: what one client has taken, and when he may take more.

This file must not know HTTP. One thread, that of the event loop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from llmlab.gateway.config import Quota
from llmlab.serve.failures import ApiError

MINUTE_S, DAY_S = 60.0, 86_400.0
# Somebody else's answer ends at an unknown time: come back soon.
RETRY_OPEN_S = 1


class Window:
    """How much was taken within the last `length_s` seconds, of at most `limit`."""

    def __init__(self, limit: float, length_s: float) -> None:
        self.limit, self.length_s = limit, length_s
        self._taken: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def add(self, amount: float, now_s: float) -> None:
        self._taken.append((now_s, amount))
        self._total += amount

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` more has room; 0: it has it now, inf: it never will."""
        while self._taken and self._taken[0][0] <= now_s - self.length_s:
            self._total -= self._taken.popleft()[1]
        if not self._taken:
            self._total = 0.0  # floats add up to almost nothing
        if self._total + amount <= self.limit:
            return 0.0
        left = self._total
        for at_s, one in self._taken:
            left -= one
            if left + amount <= self.limit:
                return at_s + self.length_s - now_s
        return math.inf


class Account:
    """One client: his name in the log, and his quota."""

    def __init__(self, name: str, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.quota = name, quota
        self.num_open = 0
        self._clock = clock
        self._requests = _window(quota.requests_per_minute, MINUTE_S)
        self._tokens = _window(quota.tokens_per_minute, MINUTE_S)
        self._cost = _window(quota.cost_per_day, DAY_S)

    def may_ask(self, model: str) -> bool:
        return self.quota.models is None or model in self.quota.models

    def enter(self, num_tokens: int) -> None:
        """A request with a prompt of about that many tokens.

        Raises: ApiError (429) with the time of the next try; 400 when it is over the quota as it stands.
        """
        now_s, quota = self._clock(), self.quota
        if quota.max_open is not None and self.num_open >= quota.max_open:
            raise _too_many(f"{self.num_open} of your answers are open, and the limit is {quota.max_open}", 1)
        if quota.tokens_per_minute is not None and num_tokens > quota.tokens_per_minute:
            raise ApiError(
                400,
                f"This prompt of about {num_tokens:,} tokens is over your {quota.tokens_per_minute:,} tokens a minute. "
                "Send a shorter one.",
                code="quota_exceeded",
            )
        # A day's money is spent when the answer is there: what it will cost, nobody knows before.
        for window, amount, what in (
            (self._requests, 1, "requests a minute"),
            (self._tokens, num_tokens, "tokens a minute"),
            (self._cost, 1e-12, "of cost a day"),
        ):
            if window is not None and (wait_s := window.wait_s(amount, now_s)) > 0:
                raise _too_many(f"You have used your {window.limit:,g} {what}", min(wait_s, window.length_s))
        if self._requests is not None:
            self._requests.add(1, now_s)
        if self._tokens is not None:
            self._tokens.add(num_tokens, now_s)
        self.num_open += 1

    def leave(self, num_tokens_more: int, cost: float | None) -> None:
        """It has ended: what it took beyond what enter() was told, and what it cost."""
        self.num_open -= 1
        if self._tokens is not None:
            self._tokens.add(num_tokens_more, self._clock())
        self.spend(cost)

    def spend(self, cost: float | None, ago_s: float = 0.0) -> None:
        if self._cost is not None and cost:
            self._cost.add(cost, self._clock() - ago_s)


def _window(limit: float | None, length_s: float) -> Window | None:
    return None if limit is None else Window(limit, length_s)


def _too_many(why: str, wait_s: float) -> ApiError:
    after_s = max(RETRY_OPEN_S, math.ceil(wait_s))
    return ApiError(
        429, f"{why}. Try again in {after_s} s.", code="quota_exceeded", headers={"Retry-After": str(after_s)}
    )
