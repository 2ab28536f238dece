"""Loading the fake engine, and what its tests ask of a trace. Not in conftest.py: there are several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.trace import Trace

LoadFake = Callable[..., EngineHandle]
OF_LOAD = {"name", "quant", "ctx", "seqs", "step_tokens", "policy", "seed", "timeout"}


def load_fake(
    isolation: str = "inline", *, engine: str = "fake_engine:FakeEngine", model: str = "a-model", **arguments: Any
) -> EngineHandle:
    """load() of the fake engine, or of one made from it; what load() does not know are options of the engine."""
    options = {name: arguments.pop(name) for name in list(arguments) if name not in OF_LOAD}
    handle = load(model, engine, isolation=isolation, options=options, **arguments)
    assert isinstance(handle, EngineHandle)
    return handle


def sound(trace: Trace) -> Trace:
    """The same trace, when it breaks no invariant."""
    assert [str(violation) for violation in trace.validate()] == []
    return trace
