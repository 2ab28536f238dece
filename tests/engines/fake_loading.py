"""The type of the fixture load_fake. Not in conftest.py: there are several files of that name, and one module."""

from __future__ import annotations

from typing import Any, Protocol

from llmlab.engines.handle import EngineHandle


class LoadFake(Protocol):
    def __call__(self, isolation: str = "inline", **arguments: Any) -> EngineHandle: ...
