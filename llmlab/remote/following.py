"""Following: all that a server does from now on, as a run without requests of its own. It ends when it is stopped.

This file must not know servers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from llmlab.engines.recorder import News
from llmlab.engines.run import Run
from llmlab.trace import Trace

if TYPE_CHECKING:
    from llmlab.remote.traced import TracedHandle

# Steps of before that a picture begins with, and steps after which it begins anew: a page holds all that it shows.
NUM_BEFORE, MAX_STEPS = 200, 10_000


class Following(Run):
    """Made by TracedHandle.following. `part` counts the beginnings: after a gap, and when a picture has grown long."""

    def __init__(self, handle: TracedHandle) -> None:
        super().__init__((), handle.header, abort=lambda _: 0.0, trace=lambda _: handle.trace, engine=handle)
        self._handle, self.title = handle, f"All of {handle.url}"
        self._is_over = False
        self._first, self._num_grown = 0, 0
        self.first_step = 0  # it can be shown at once

    @property
    def done(self) -> bool:
        return self._is_over or self._handle.is_unloaded

    @property
    def part(self) -> int:
        segments = self._handle.segments
        if segments.num_steps - max(self._first, segments.base) > MAX_STEPS:
            self._num_grown += 1
            self._first = segments.num_steps - NUM_BEFORE
        return segments.num_begun + self._num_grown

    @property
    def note(self) -> str:
        told = f"All that {self._handle.url} does, whoever asks. Stop ends the watching only."
        if not self._handle.is_seen:
            return self._handle.note_of(self) or told
        return f"{told} {gaps[-1]}" if (gaps := self._handle.gaps) else told

    @property
    def trace(self) -> Trace:
        return self._handle.trace

    def opening(self) -> tuple[Trace, int]:
        segments = self._handle.segments
        self._first = max(segments.base, self._first, segments.num_steps - NUM_BEFORE)
        return segments.opening(self._first)

    def steps_since(self, number: int, known: Collection[str] = ()) -> News:
        return self._handle.steps_since(number, known)

    def cancel(self) -> None:
        self._is_over = True

    def stop(self) -> None:
        self._is_over = True
        self.ring()

    def __repr__(self) -> str:
        return f"Following({self._handle.name!r}, {'ended' if self.done else 'goes on'})"
