"""Text that grows in the output of a cell: one area that is updated in a front end, appended text where none can be.

This file must not know engines or results: it shows what it is handed, at most MAX_UPDATES_PER_S times a second.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from llmlab.magics.render import Bundle

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

MAX_UPDATES_PER_S = 20
Mode = Literal["live", "append", "once"]


class Screen(Protocol):
    """Where an answer appears."""

    def show(self, text: str, bundle: Callable[[], Bundle]) -> None:
        """All of the text so far. `bundle` draws it, and is called only when it is time for an update."""

    def finish(self, text: str, bundle: Bundle, below: str) -> None:
        """The end: `bundle` replaces what is on screen; where nothing can be replaced, the rest and `below` follow."""


class LiveScreen:
    """An output that is replaced while it grows. A front end that is reopened later finds the last version."""

    def __init__(self, updates_per_s: float = MAX_UPDATES_PER_S) -> None:
        self._pause_s = 1 / updates_per_s
        self._display_id = uuid.uuid4().hex
        self._is_open = False
        self._next_s = 0.0

    def show(self, text: str, bundle: Callable[[], Bundle]) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + self._pause_s
            self._publish(bundle())

    def finish(self, text: str, bundle: Bundle, below: str) -> None:
        self._publish(bundle)

    def _publish(self, bundle: Bundle) -> None:
        from IPython.display import display

        display(bundle, raw=True, display_id=self._display_id, update=self._is_open)
        self._is_open = True


class AppendScreen:
    """Printed text, for where nothing that was shown can be replaced."""

    def __init__(self) -> None:
        self._printed = 0
        self._next_s = 0.0

    def show(self, text: str, bundle: Callable[[], Bundle]) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + 1 / MAX_UPDATES_PER_S
            self._print(text[self._printed :])
            self._printed = len(text)

    def finish(self, text: str, bundle: Bundle, below: str) -> None:
        self._print(text[self._printed :] + ("" if text.endswith("\n") else "\n") + (below + "\n" if below else ""))

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class NoScreen:
    """Shows nothing (-q)."""

    def show(self, text: str, bundle: Callable[[], Bundle]) -> None:
        return

    def finish(self, text: str, bundle: Bundle, below: str) -> None:
        return


class LastOnly:
    """Shows nothing until the end (--no-stream)."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, text: str, bundle: Callable[[], Bundle]) -> None:
        return

    def finish(self, text: str, bundle: Bundle, below: str) -> None:
        self._screen.finish(text, bundle, below)


def mode_of(shell: InteractiveShell) -> Mode:
    """Where this cell shows: "live" in a front end, "append" in a terminal, "once" under nbclient.

    nbclient has no one who could answer input(), and says so in each request: that tells it from a front end. It keeps
    every piece that is printed as an output of its own, on a line of its own: so all is printed at the end.
    """
    if not hasattr(shell, "kernel"):
        return "append"
    content = shell.get_parent().get("content", {})  # type: ignore[attr-defined]
    return "live" if content.get("allow_stdin", True) else "once"


def screen(mode: Mode, *, quiet: bool, stream: bool) -> Screen:
    """The screen that the flags ask for."""
    if quiet:
        return NoScreen()
    shown: Screen = LiveScreen() if mode == "live" else AppendScreen()
    return shown if stream and mode != "once" else LastOnly(shown)
