"""Engines for tests, unloaded at the end of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_loading import LoadFake

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load


@pytest.fixture
def load_fake() -> Iterator[LoadFake]:
    """load() of the fake engine; keyword arguments that load() does not know are options of it."""
    known = {"name", "ctx", "seqs", "step_tokens", "policy", "seed", "timeout"}

    def load_it(isolation: str = "inline", **arguments: Any) -> EngineHandle:
        options = {name: arguments.pop(name) for name in list(arguments) if name not in known}
        handle = load("a-model", "fake_engine:FakeEngine", isolation=isolation, options=options, **arguments)
        assert isinstance(handle, EngineHandle)
        return handle

    yield load_it
    registry.unload(all=True)
