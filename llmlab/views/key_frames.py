"""KeyFrames: once a second a message from which a view that came late can begin at once.

{"t": "k", "from": n, "head": ..., "requests": all of them, "steps": [...]} with the steps from the n-th of the story
on, and in the head the KV cache before the first of them. This file must not know runs or screens.
"""

from __future__ import annotations

import time

import msgspec

from llmlab.views.kv_now import Memory, empty_kv
from llmlab.views.story import Story

KEY_S = 1.0
# Of a large cache a key message is large: it is sent less often, so that this many bytes a second are enough.
KEY_BYTES_PER_S = 100_000

_json = msgspec.json.Encoder().encode


class KeyFrames:
    """Those of one story. note() before steps are added to it, take() after."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._next_s = 0.0
        self.first: int | None = None  # the step from which the next message is; None: none is due
        self._start = b""  # the cache before it, when the story tells it
        self._kv: Memory | None = None  # else that is rebuilt: the cache after so many steps
        self._num_in_kv = 0
        self._last = b""

    def note(self) -> None:
        """The next step to come begins a message, if one is due."""
        if self.first is None and time.monotonic() >= self._next_s:
            start = self._story.start()
            self.first, self._start = len(self._story.steps), b"" if start is None else _json(start)

    def take(self) -> bytes:
        """The message that is due, with all steps so far."""
        assert self.first is not None
        story, first, self.first = self._story, self.first, None
        start = msgspec.Raw(self._start or self._rebuilt(first))
        head = story.head if first == 0 else {**story.head, "start": start}
        requests = list(enumerate(story.requests))
        self._last = _json({"t": "k", "from": first, "head": head, "requests": requests, "steps": story.steps[first:]})
        self._wait()
        return self._last

    def again(self) -> bytes:
        """The last message, when no step came for as long: for a view that comes while the engine stands; else b""."""
        if self.first is not None or not self._last or time.monotonic() < self._next_s:
            return b""
        self._wait()
        return self._last

    def _wait(self) -> None:
        self._next_s = time.monotonic() + max(KEY_S, len(self._last) / KEY_BYTES_PER_S)

    def _rebuilt(self, first: int) -> bytes:
        self._kv = self._kv or empty_kv(self._story.head)
        for record in self._story.steps[self._num_in_kv : first]:
            self._kv.step(record)
        self._num_in_kv = first
        return _json(self._kv.snapshot())
