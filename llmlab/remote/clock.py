"""Clock: the clock of a server's trace against that of this machine.

A server is asked what its clock says, a few times; the answer that took least time decides. Where between question and
answer the server looked is not known, so the offset is right to half of that time. This file must not know how it is
asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

NUM_QUESTIONS = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """`epoch_s`: time.monotonic() of this machine at t_s = 0 of the trace, right to `error_s`."""

    epoch_s: float
    error_s: float

    @classmethod
    def measured(cls, ask: Callable[[], float], num_questions: int = NUM_QUESTIONS) -> Clock:
        """`ask`: t_s as the server tells it. Raises: what `ask` raises."""
        best: Clock | None = None
        for _ in range(num_questions):
            asked_s = time.monotonic()
            told_s = ask()
            answered_s = time.monotonic()
            found = cls((asked_s + answered_s) / 2 - told_s, (answered_s - asked_s) / 2)
            if best is None or found.error_s < best.error_s:
                best = found
        assert best is not None
        return best

    @property
    def started_at(self) -> float:
        """Unix time of t_s = 0, as the clock of this machine has it."""
        return time.time() - (time.monotonic() - self.epoch_s)
