"""The type of the fixture load_fake, and what its tests ask of a trace. Not in conftest.py: there are several."""

from __future__ import annotations

from typing import Any, Protocol

from llmlab.engines.handle import EngineHandle
from llmlab.trace import Trace


class LoadFake(Protocol):
    def __call__(self, isolation: str = "inline", **arguments: Any) -> EngineHandle: ...


def sound(trace: Trace) -> Trace:
    """The same trace, when it breaks no invariant."""
    assert [str(violation) for violation in trace.validate()] == []
    return trace
