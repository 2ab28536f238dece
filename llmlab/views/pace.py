"""Pace: when a thread that follows an engine looks for news, so that it takes little from that engine.

Threads that compute a forward pass wait for each other: what one core does meanwhile holds up all of them. So the more
the thread has to do, the less often it wakes. (A lower priority was measured, and won no tokens.)
This file must not know runs or views.
"""

from __future__ import annotations

import os
import time

PERIOD_S, MAX_PERIOD_S = 0.05, 0.25
NUM_CAUGHT_UP = 2  # looks that came late are caught up on in half the time; more of them are left out
# It takes no more than these shares of the machine, or it looks less often. An engine on the same CPUs is slowed by
# twice what is taken from it.
MAX_SHARE, MAX_SHARE_OF_ENGINE = 0.05 * (os.cpu_count() or 1), 0.005 * (os.cpu_count() or 1)
LOOK_WEIGHT = 0.02  # of one look in the mean: a key message, which is large, slows nothing


class Pace:
    """Made by the thread that it is for."""

    def __init__(self) -> None:
        self._mean_s = 0.0  # CPU time of a look, over the last ones
        self._num_looks = -1  # the first, at the beginning of a story, does not count
        self._due_s = time.monotonic()
        self._started_s = time.thread_time()

    def rest(self, *, is_beside: bool) -> None:
        """Sleep until the next look is due. `is_beside`: the engine computes on these CPUs."""
        self._add(time.thread_time() - self._started_s)
        self._due_s += period_s(self._mean_s, is_beside=is_beside)
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - NUM_CAUGHT_UP * PERIOD_S)
        time.sleep(max(PERIOD_S / 2, self._due_s - now_s))
        self._started_s = time.thread_time()

    def _add(self, look_s: float) -> None:
        """From the first ones on the mean is one: many runs end within a few seconds."""
        self._num_looks += 1
        if self._num_looks:
            self._mean_s += max(LOOK_WEIGHT, 1 / self._num_looks) * (look_s - self._mean_s)


def period_s(mean_s: float, *, is_beside: bool) -> float:
    """Between two looks, each of which takes `mean_s` of CPU time."""
    return min(max(PERIOD_S, mean_s / (MAX_SHARE_OF_ENGINE if is_beside else MAX_SHARE)), MAX_PERIOD_S)
