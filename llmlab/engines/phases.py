"""Phases: where the time of a forward pass goes.

This file must not know any engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Phases:
    """Where the time of a forward pass goes, in seconds. On a GPU it waits for the kernels, so it is off there."""

    def __init__(self, *, on: bool, wait: Callable[[], None] = lambda: None) -> None:
        self._on, self._wait = on, wait
        self.seconds: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        self.seconds = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """The time since the last mark belongs to `name`."""
        if self._on:
            self._wait()
            now = time.perf_counter()
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
            self._last = now
