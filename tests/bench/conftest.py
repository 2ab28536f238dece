"""The fake engine, loaded under names of one's choice, and unloaded at the end of each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))  # engine hosts get this path too

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from tests.engines.fake_loading import load_fake

Load = Callable[..., EngineHandle]


@pytest.fixture
def load_named() -> Iterator[Load]:
    """load_named("a", step_s=0.01): options of the fake engine, run inline."""

    def load_it(name: str, *, seqs: int = 16, ctx: int = 2048, **options: Any) -> EngineHandle:
        return load_fake(name=name, seqs=seqs, ctx=ctx, step_tokens=4096, **{"num_cells": 16_000, **options})

    yield load_it
    registry.unload(all=True)
