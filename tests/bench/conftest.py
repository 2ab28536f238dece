"""The fake engine, loaded under names of one's choice, and unloaded at the end of each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load

Load = Callable[..., EngineHandle]


@pytest.fixture
def load_named() -> Iterator[Load]:
    """load_named("a", step_s=0.01): options of the fake engine, run inline."""

    def load_it(
        name: str, *, seqs: int = 16, ctx: int = 2048, isolation: str = "inline", **options: Any
    ) -> EngineHandle:
        options = {"num_cells": 16_000, **options}
        handle = load(
            "a-model", "fake_engine:FakeEngine", name=name, isolation=isolation, seqs=seqs, ctx=ctx, step_tokens=4096,
            options=options,
        )  # fmt: skip
        assert isinstance(handle, EngineHandle)
        return handle

    yield load_it
    registry.unload(all=True)
