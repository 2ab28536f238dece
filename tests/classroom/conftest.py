"""A class on the engine without a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).resolve().parent.parent / part) for part in ("engines", "serve")]

import fake_loading
from class_support import Class, MakeClass

import llmlab
from llmlab.engines import registry

OF_ENGINE = {"step_s", "fail_at", "num_cells", "seqs", "ctx", "step_tokens", "isolation", "engine"}


@pytest.fixture
def open_class(tmp_path: Path) -> Iterator[MakeClass]:
    """open_class(step_s=0.01, students=["ada", "bob"]): options of the fake engine, or of classroom()."""
    made: list[Class] = []

    def make(**options: Any) -> Class:
        of_engine = {name: options.pop(name) for name in list(options) if name in OF_ENGINE}
        handle = fake_loading.load_fake(name="echo", **of_engine)
        options = {"folder": tmp_path / "class", "students": ["ada", "bob"], **options}
        made.append(Class(llmlab.classroom(handle, **options)))
        return made[-1]

    yield make
    for one in made:
        failures = one.room.failures
        one.close()
        assert failures == []
    registry.unload(all=True)
