"""Engines without a model for comparisons, unloaded at the end of each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmlab.engines import registry

sys.path.append(str(Path(__file__).resolve().parent))  # engine hosts get this path too
from compare_support import Load, load_engine


@pytest.fixture
def load() -> Iterator[Load]:
    yield load_engine
    registry.unload(all=True)
