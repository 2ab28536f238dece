"""Engines that do not get ready, or not at once."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from fake_engine import FakeEngine
from msgspec import structs

from llmlab.engines.base import EngineConfig


class SlowEngine:
    """Takes for ever to load."""

    def __init__(self, config: Any) -> None:
        time.sleep(600)


class LateEngine(FakeEngine):
    """Takes half a second to load, and notes when it is closed."""

    closed = threading.Event()

    def __init__(self, config: EngineConfig) -> None:
        time.sleep(0.5)
        super().__init__(config)

    def close(self) -> None:
        self.closed.set()


class AbortingEngine:
    """Ends its process while it loads, as a GGML_ASSERT does."""

    def __init__(self, config: Any) -> None:
        os.abort()


class HalfAmxEngine(FakeEngine):
    """Dies on this machine unless it is told to be careful."""

    def __init__(self, config: EngineConfig) -> None:
        if config.options.get("extra_bufts", True):
            os.abort()
        super().__init__(config)


class UnspeakableEngine(FakeEngine):
    """Loads, and has a header that no message can carry."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.header = structs.replace(self.header, dtype=object())
