"""What the tests of comparisons load and ask. Not in conftest.py: there are several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llmlab
from llmlab.compare import Comparison
from llmlab.engines.handle import EngineHandle
from tests.engines.fake_loading import load_fake

Load = Callable[..., EngineHandle]


def load_engine(name: str, **arguments: Any) -> EngineHandle:
    """An engine that echoes its prompt; what load() does not know are options of it, see compare_engine.py."""
    return load_fake(engine="compare_engine:CompareEngine", model="letters", name=name, **arguments)


def compare(*engines: Any, prompts: Any = "abcdefgh", **options: Any) -> Comparison:
    """8 tokens of each, unless `options` says otherwise."""
    found: Comparison = llmlab.compare(prompts, engines, **{"max_tokens": 8, **options})
    return found
