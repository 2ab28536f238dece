"""What the tests of comparisons load and ask. Not in conftest.py: there are several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load

Load = Callable[..., EngineHandle]
OF_LOAD = ("quant", "seqs", "ctx", "isolation")


def load_engine(name: str, **arguments: Any) -> EngineHandle:
    """An engine that echoes its prompt; what load() does not know are options of it, see compare_engine.py."""
    own = {key: arguments.pop(key) for key in OF_LOAD if key in arguments}
    own.setdefault("isolation", "inline")
    handle = load("letters", engine="compare_engine:CompareEngine", name=name, options=arguments, **own)
    assert isinstance(handle, EngineHandle)
    return handle
