"""Presence: whether a page shows a widget. One that does says so every two seconds, see static/here.js.

What is sent to a page that is gone, Jupyter's server keeps for it, without bound. This file must not know widgets or
notebooks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_S = 90.0  # the timers of a hidden tab may run only once a minute


class Presence:
    """Of all pages of one widget together. Any thread may call.

    Messages of a page come in a thread of their own, or wait until the main thread has time for them: then no page can
    be heard while `is_cell_running()`, and none is taken for gone.
    """

    def __init__(self, is_cell_running: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_cell_running, self._clock = is_cell_running, clock
        self._quiet_since_s = clock()
        self._is_main_thread = True  # in which the last message came

    def heard(self) -> None:
        """Of a page, in this thread."""
        self._is_main_thread = threading.current_thread() is threading.main_thread()
        self._quiet_since_s = self._clock()

    def is_there(self) -> bool:
        """One has spoken within PATIENCE_S seconds in which it could be heard. To be asked once a second at least."""
        now_s = self._clock()
        if now_s - self._quiet_since_s >= PATIENCE_S:
            return False
        if self._is_main_thread and self._is_cell_running():
            self._quiet_since_s = now_s
        return True
