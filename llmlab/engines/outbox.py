"""Outbox: how steps and events leave the engine's process.

A step that only added a token to each answer waits a little for the next ones: every message wakes threads in two
processes, and on a small machine the engine computes on all cores. Whatever somebody waits for leaves at once.
This file must not know the engine or the sockets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from llmlab.engines import messages as wire
from llmlab.engines.base import StepOutput

# Below the 50 ms between two frames of a view or a streaming answer: nobody sees that tokens come in twos and threes.
# And below the time of a step at 30 steps a second, so that each of 20 frames has news.
GATHER_S = 0.03


class Outbox:
    """One thread. In order: an event never overtakes a step."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._held: list[tuple[float, StepOutput]] = []  # with the time.monotonic() of their end
        self._last_s = 0.0

    def step(self, step: StepOutput, *, may_wait: bool) -> None:
        now_s = time.monotonic()
        self._held.append((now_s, step))
        if not may_wait or now_s - self._last_s >= GATHER_S:
            self.flush()

    def event(self, event: wire.Event) -> None:
        self.flush()
        self._send(wire.EVENT + wire.encode(event))

    def flush(self) -> None:
        """Nothing is held any more. To be called before the engine rests."""
        if not self._held:
            return
        self._last_s = time.monotonic()
        self._send(wire.STEPS + wire.encode([(self._last_s - ended_s, step) for ended_s, step in self._held]))
        self._held.clear()
