"""What the tests of the model store share: one cache for the session, and llama.cpp as the judge of our files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_reference import LlamaCpp

import llmlab.models.gguf_package  # noqa: F401  # before any test imports gguf, with all that it brings along
from llmlab import models

MEMORY, OWN_CACHE_BYTES = Path("/dev/shm"), 2e9


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
def own_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of this test alone: in memory where there is room, as half a GB is written several times."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > OWN_CACHE_BYTES
    with tempfile.TemporaryDirectory(dir=MEMORY if has_room else None) as folder:
        monkeypatch.setenv("LLMLAB_CACHE", str(Path(folder) / "cache"))
        yield Path(folder) / "cache"


@pytest.fixture(scope="session")
def smollm2() -> models.Model:
    return models.get("smollm2-135m")


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    """A whole GGUF file of 2 kB: 1 layer, 8 tokens; what its tensors hold does not matter here."""
    from llmlab.models.config import ModelConfig
    from llmlab.models.gguf_writer import write_gguf
    from llmlab.models.tensors import expected_tensors, gguf_name

    config = ModelConfig("llama", 1, 8, 8, 2, 1, 4, 8, 64, tie_embeddings=True)
    shapes = {gguf_name(name): shape for name, shape in expected_tensors(config).items()}
    metadata = {
        "general.type": "model",
        "general.file_type": 0,
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 8,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list("abcdefgh"),
        "tokenizer.ggml.token_type": [1] * 8,
        "tokenizer.ggml.merges": ["a b"],
    }
    path = tmp_path / "tiny.gguf"
    write_gguf(
        path,
        "llama",
        metadata=metadata,
        shapes=shapes,
        quant="F32",
        read=lambda name: np.ones(shapes[name], np.float32),
    )
    return path


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
