"""Queue: how many answers may run or wait on the engine at once; who comes then is told when to try again.

This file must not know HTTP or engines. One thread, that of the event loop.
"""

from __future__ import annotations

import math
import time

from llmlab.serve.failures import ApiError

# What a client is told at most, and how much the newest gap between two ends counts in the mean.
MAX_RETRY_S, NEWEST = 60, 0.2


class Queue:
    """Room for `limit` answers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_open = 0
        self._last_end_s: float | None = None
        self._gap_s = 0.0  # between two ends while it is in use: moving mean

    def enter(self, count: int) -> None:
        """Raises: ApiError (429) when there is no room for `count` more; 400 when there never will be."""
        if count > self.limit:
            raise ApiError(
                400, f"This request asks for {count} answers at once; this server holds {self.limit}. Send fewer.",
                param="n",
            )  # fmt: skip
        if self.num_open + count > self.limit:
            after_s = self.retry_after_s(count)
            raise ApiError(
                429, f"{self.num_open} answers run or wait and the limit is {self.limit}. Try again in {after_s} s.",
                code="queue_full", headers={"Retry-After": str(after_s)},
            )  # fmt: skip
        self.num_open += count

    def leave(self, count: int) -> None:
        """They have ended on the engine."""
        now_s = time.monotonic()
        self.num_open -= count
        if self._last_end_s is not None:
            self._gap_s += NEWEST * ((now_s - self._last_end_s) / count - self._gap_s)
        # an idle time says nothing about how long an answer takes
        self._last_end_s = now_s if self.num_open else None

    def retry_after_s(self, count: int) -> int:
        """Whole seconds until `count` places should be free, as fast as they came free lately; 1 at least."""
        missing = self.num_open + count - self.limit
        return max(1, min(MAX_RETRY_S, math.ceil(missing * self._gap_s)))
