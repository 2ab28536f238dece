"""How far a measurement is, and how much longer it takes. This file must not know engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from llmlab.cards import seconds_text


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a measurement."""

    # what is measured now
    engine: str
    load: str
    # requests that have ended, and all that will be sent, warm-up and repeats included
    num_ended: int
    num_requests: int
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds to go if the rest takes as long a request as what is done; None before the first has ended."""
        if not self.num_ended:
            return None
        return self.elapsed_s / self.num_ended * (self.num_requests - self.num_ended)

    def __str__(self) -> str:
        """
        >>> print(Progress("a", "2 requests/s", 12, 48, 10.0))
        a at 2 requests/s · 12 of 48 requests · about 30.00 s left
        """
        left = "" if self.left_s is None else f" · about {seconds_text(self.left_s)} left"
        return f"{self.engine} at {self.load} · {self.num_ended} of {self.num_requests} requests{left}"


class Watch:
    """Turns counts of requests into moments, for whoever wants to be told."""

    def __init__(self, num_requests: int, tell: Callable[[Progress], object] | None) -> None:
        self._num_requests, self._tell = num_requests, tell
        self._num_before, self._started_s = 0, time.monotonic()

    def during(self, engine: str, load: str) -> Callable[[int], None]:
        """What a drive calls with the number of its requests that have ended."""

        def tell(num_ended: int) -> None:
            if self._tell is not None:
                elapsed_s = time.monotonic() - self._started_s
                self._tell(Progress(engine, load, self._num_before + num_ended, self._num_requests, elapsed_s))

        return tell

    def finish(self, num_requests: int) -> None:
        """A drive with so many requests is over."""
        self._num_before += num_requests
