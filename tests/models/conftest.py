"""What the tests of the model store share: one cache for the session, and llama.cpp as the judge of our files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_reference import LlamaCpp

from llmlab import models


@pytest.fixture(scope="session")
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where conversions of this session are made once."""
    cache = tmp_path_factory.mktemp("llmlab-cache")
    yield cache
    shutil.rmtree(cache)  # pytest would keep these 2 GB for three more runs


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_the_user(_session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's caches is read or written, and no network is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMLAB_CACHE", str(_session_cache))
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub-cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of this test alone."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture(scope="session")
def smollm2() -> models.Model:
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
