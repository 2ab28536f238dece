"""Pairs on the real llama.cpp that differ in one thing: the cause that is named is that thing.

A doubled BOS and the company in a batch are constructed in test_comparison.py: llama.cpp's adapter removes the one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmlab
from llmlab.compare import Comparison, Parting
from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.models import get
from tests.models.adapters import save_adapter

pytest.importorskip("llama_cpp")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # it runs on machines that do other things as well

MODEL, PROMPT = "smollm2-135m", "Why is the sky blue? Answer in two sentences."
SEVERAL = ["List three animals.", "Why is the sky blue?", "Tell me a joke."]
NUM_TOKENS = 8


def load(name: str, model: str = MODEL, **options: Any) -> EngineHandle:
    handle = llmlab.load(model, "llamacpp", name=name, ctx=512, **{"quant": "Q4_1", **options})
    assert isinstance(handle, EngineHandle)
    return handle


@pytest.fixture(scope="module")
def base() -> Iterator[EngineHandle]:
    yield load("base")
    registry.unload(all=True)


@pytest.fixture
def other(base: EngineHandle) -> Iterator[Callable[..., EngineHandle]]:
    loaded: list[EngineHandle] = []

    def load_other(*model: str, **options: Any) -> EngineHandle:
        loaded.append(load("other", *model, **options))
        return loaded[-1]

    yield load_other
    for handle in loaded:
        handle.unload()


def parting(*engines: EngineHandle, prompt: Any = PROMPT, **options: Any) -> Parting:
    """Where they part; the same place that the raw token ids show."""
    found: Comparison = llmlab.compare(prompt, engines, max_tokens=NUM_TOKENS, **options)
    first = found.first_divergence
    assert first is not None, "the two were to part"
    a, b = (found.results[first.prompt][i] for i in first.columns)
    assert a is not None and b is not None
    pairs = enumerate(zip(a.token_ids, b.token_ids, strict=False))
    assert first.index == next((i for i, (x, y) in pairs if x != y), min(len(a.token_ids), len(b.token_ids)))
    return first


def name_of(found: Parting) -> str | None:
    return found.cause.name if found.cause is not None else None


def changed_gguf(folder: Path, old: bytes, new: bytes) -> str:
    """A copy of the model file with these words of its metadata in the place of those."""
    content = get(MODEL).gguf("Q4_1").read_bytes()
    assert content.count(old) == 1 and len(new) <= len(old)
    path = folder / "changed.gguf"
    path.write_bytes(content.replace(old, new.ljust(len(old))))
    return str(path)


def test_another_template(base: EngineHandle, other: Callable[..., EngineHandle], tmp_path: Path):
    old, new = b"a helpful AI assistant named SmolLM, trained by Hugging Face", b"a pirate and speak of rum and the sea"
    found = parting(base, other(changed_gguf(tmp_path, old, new)), prompt=SEVERAL)
    assert name_of(found) == "template"


def test_another_quant(base: EngineHandle, other: Callable[..., EngineHandle]):
    found = parting(base, other(quant="Q4_0"))
    assert name_of(found) == "quantization"
    assert found.sides is not None and [len(side.top) for side in found.sides] == [5, 5]
    assert found.kl is not None and found.kl > 0.0


def test_another_dtype(other: Callable[..., EngineHandle]):
    f32 = load("f32", quant="F32")
    try:
        found = parting(f32, other(quant="BF16"), prompt="Why is the sky blue?")
    finally:
        f32.unload()
    assert name_of(found) == "dtype"


def test_another_seed(base: EngineHandle):
    assert name_of(parting(base, temperature=1.0, seed=[1, 2])) == "seed"


def test_another_temperature(base: EngineHandle):
    assert name_of(parting(base, temperature=[0, 1.0], seed=3)) == "temperature"


def test_another_system_message_is_no_other_template(base: EngineHandle):
    found = parting(base, system=["You answer in French.", "You answer in capitals."])
    assert name_of(found) == "system message"


def test_an_adapter(base: EngineHandle, other: Callable[..., EngineHandle], tmp_path: Path):
    lora = save_adapter(tmp_path / "adapter", get(MODEL).hf_dir, names=["v_proj"], scale=0.1, alpha=16.0)
    found = parting(base, other(lora=lora))
    assert name_of(found) == "LoRA"
    assert found.cause is not None and found.cause.finding == "other has a LoRA adapter, the other has none"
