"""What the tests of the model store share: one cache for the session, and llama.cpp as the judge of our files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_reference import LlamaCpp

from llmlab import models


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's cache is read or written; conversions of one session are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMLAB_CACHE", str(tmp_path_factory.mktemp("llmlab-cache")))
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub-cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def smollm2(_session_cache: None) -> models.Model:
    return models.get("smollm2-135m")


@pytest.fixture
def llama() -> Iterator[Callable[..., LlamaCpp]]:
    """`llama(path)` opens a file in llama.cpp until the test ends."""
    opened: list[LlamaCpp] = []

    def open_file(path: Path, **settings: Any) -> LlamaCpp:
        opened.append(LlamaCpp(path, **settings))
        return opened[-1]

    yield open_file
    for file in opened:
        file.close()
