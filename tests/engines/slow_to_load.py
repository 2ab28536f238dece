"""Engines that never get ready."""

from __future__ import annotations

import os
import time
from typing import Any


class SlowEngine:
    """Takes for ever to load."""

    def __init__(self, config: Any) -> None:
        time.sleep(600)


class AbortingEngine:
    """Ends its process while it loads, as a GGML_ASSERT does."""

    def __init__(self, config: Any) -> None:
        os.abort()
