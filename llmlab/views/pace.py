"""Pace: when a thread that follows an engine looks for news, so that it takes little from that engine.

Threads that compute a forward pass wait for each other: what one core does meanwhile holds up all of them. So the more
the thread has to do, the less often it wakes. (A lower priority was measured, and won no tokens.)
This file must not know runs or views.
"""

from __future__ import annotations

import os
import threading
import time

PERIOD_S, MAX_PERIOD_S = 0.05, 0.25
NUM_CAUGHT_UP = 2  # looks that came late are caught up on in half the time; more of them are left out
MAX_SHARE = 0.05 * (os.cpu_count() or 1)  # of the machine: what takes more looks less often
# Beside an engine that computes on every core: of one core. Each look costs it several times the CPU time of the look:
# caches are cold afterwards, on both sides, and who gets the message works too.
MAX_SHARE_OF_ENGINE, MAX_PERIOD_OF_ENGINE_S = 0.001, 0.75
LOOK_WEIGHT = 0.02  # of one look in the mean: a key message, which is large, slows nothing


class Pace:
    """Made by the thread that it is for; hurry() is for all."""

    def __init__(self) -> None:
        self._mean_s = 0.0  # CPU time of a look, over the last ones
        self._num_looks = -1  # the first, at the beginning of a story, does not count
        self._due_s = time.monotonic()
        self._started_s = time.thread_time()
        self._hurried = threading.Event()

    def rest(self, *, is_beside: bool) -> None:
        """Sleep until the next look is due. `is_beside`: the engine computes on every core of this machine."""
        self._add(time.thread_time() - self._started_s)
        self._due_s += period_s(self._mean_s, is_beside=is_beside)
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - NUM_CAUGHT_UP * PERIOD_S)
        if self._hurried.wait(max(PERIOD_S / 2, self._due_s - now_s)):
            self._hurried.clear()
            self._due_s = time.monotonic()
        self._started_s = time.thread_time()

    def hurry(self) -> None:
        """Somebody waits for what they asked for: the next look is due now."""
        self._hurried.set()

    def _add(self, look_s: float) -> None:
        """From the first ones on the mean is one: many runs end within a few seconds."""
        self._num_looks += 1
        if self._num_looks:
            self._mean_s += max(LOOK_WEIGHT, 1 / self._num_looks) * (look_s - self._mean_s)


def period_s(mean_s: float, *, is_beside: bool) -> float:
    """Between two looks, each of which takes `mean_s` of CPU time."""
    share, longest_s = (MAX_SHARE_OF_ENGINE, MAX_PERIOD_OF_ENGINE_S) if is_beside else (MAX_SHARE, MAX_PERIOD_S)
    return min(max(PERIOD_S, mean_s / share), longest_s)
