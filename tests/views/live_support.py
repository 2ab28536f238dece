"""What the tests of live views have in common: an engine without a model, and a screen that keeps what it is sent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load

ENGINES = str(Path(__file__).resolve().parents[1] / "engines")
if ENGINES not in sys.path:
    sys.path.append(ENGINES)


def load_fake(**options: Any) -> EngineHandle:
    """The engine that echoes its prompt, in this process; `step_s`: how long a step takes."""
    handle = load("letters", engine="fake_engine:FakeEngine", isolation="inline", options=options)
    assert isinstance(handle, EngineHandle)
    return handle


def until(is_so: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


class FakeScreen:
    is_seen = True

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.times_s: list[float] = []
        self.told: list[tuple[str, list[Any], bool]] = []
        self.num_frozen = 0

    def send(self, message: bytes) -> None:
        self.messages.append(json.loads(message))
        self.sizes.append(len(message))
        self.times_s.append(time.monotonic())

    def tell(self, state: str, note: list[Any], is_awaited: bool) -> None:
        self.told.append((state, note, is_awaited))

    def freeze(self) -> None:
        self.num_frozen += 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["t"] == kind]

    @property
    def states(self) -> list[str]:
        return [state for state, _, _ in self.told]
