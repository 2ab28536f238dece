"""Engines for tests, unloaded at the end of each; a tiny model for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_loading
import pytest
from fake_loading import LoadFake

from llmlab.engines import registry


@pytest.fixture
def load_fake() -> Iterator[LoadFake]:
    yield fake_loading.load_fake
    registry.unload(all=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts of one message get in before the next step, however slow this machine is."""
    for name in ("COMMANDS_S", "RESTING_COMMANDS_S"):
        monkeypatch.setattr(f"llmlab.engines.loop.{name}", 5.0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a llama of three layers with random weights."""
    from tests.models import tiny_models

    folder = tmp_path_factory.mktemp("tiny")
    tiny_models.save(folder, tiny_models.byte_level_tokenizer("smollm"), tiny_models.llama_config())
    return folder
