"""Watching a run until it ends, or until somebody has enough of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class Watched(Protocol):
    """A Run, or a comparison of several."""

    @property
    def done(self) -> bool: ...

    def stop(self) -> None: ...


def watch(run: Watched, show: Callable[[], None], *, timeout_s: float | None, poll_s: float) -> None:
    """Call show() every `poll_s` until the run has ended; Stop, Ctrl-C and the timeout end it, on the engine too.

    It sleeps between two looks instead of waiting for tokens: Ctrl-C ends a sleep at once, and the last words before a
    pause appear without waiting for the next ones.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not run.done and (deadline_s is None or time.monotonic() < deadline_s):
            show()
            time.sleep(poll_s)
    except KeyboardInterrupt:
        pass
    finally:
        if not run.done:
            with suppress(KeyboardInterrupt):  # a second Ctrl-C: the run has ended on our side already
                run.stop()
