"""Bell: how the thread that reads from an engine wakes those who wait, and Ctrl-C can do no harm.

threading.Condition and Event take a lock in Python code. A KeyboardInterrupt between taking it and the `with` block
leaves it taken for ever, and the reader stands still. Here no thread ever holds a lock that another one needs.
This file must not know what is waited for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Bell:
    """Wakes all who wait. No thread ever holds a lock that another needs."""

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()

    def ring(self) -> None:
        with suppress(IndexError):  # somebody else rings too
            while self._waiting:
                self._waiting.popleft().release()

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Until is_over(), which is asked after each ring, or until timeout_s. True when it is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Enlist first, look second: a ring between the two is not missed.
            latch = threading.Lock()
            latch.acquire()
            self._waiting.append(latch)
            if is_over():
                return True
            left = -1.0 if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                return False
            latch.acquire(timeout=left)
