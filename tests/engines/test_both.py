"""load(engine="both"): what either engine is asked for, and what is left when one of them cannot be loaded."""

from __future__ import annotations

from typing import Any

import pytest
from fake_loading import LoadFake

import llmlab
from llmlab.engines import both, loading
from llmlab.engines.both import LLAMACPP_OPTIONS, SHARED_OPTIONS, load_both
from llmlab.engines.handle import EngineHandle
from llmlab.errors import DoesNotFit, EngineError
from llmlab.models import Fit
from llmlab.trace import Header

MODEL = "smollm2-135m"
GB = 1_000_000_000


class Loads:
    """Stands for load(): remembers what was asked, weighs half a GB of weights for each, loads the fake engine."""

    def __init__(self, load_fake: LoadFake) -> None:
        self._load_fake = load_fake
        self.free_bytes = 8 * GB
        self.gpu = False
        self.broken = ""
        self.dtype = "float32"
        self.asked: list[dict[str, Any]] = []

    def __call__(self, model: str, *, engine: str, dry_run: bool = False, **given: Any) -> Fit | EngineHandle:
        if dry_run:
            on_gpu = engine == "vllm" and self.gpu
            quant = given.get("quant") or ("BF16" if on_gpu else "F32")
            free, kind = (4 * GB, "GPU") if on_gpu else (self.free_bytes, "RAM")
            return Fit(model, engine, quant, 4096, 1, 4096, GB // 2, 0, GB, free, kind)
        self.asked.append({"engine": engine, **{key: value for key, value in given.items() if value is not None}})
        if engine == self.broken:
            raise EngineError(f"{engine} is broken")
        handle = self._load_fake(name=given["name"])
        handle.header = Header(engine=engine, dtype=self.dtype)
        return handle


@pytest.fixture
def loads(load_fake: LoadFake, monkeypatch: pytest.MonkeyPatch) -> Loads:
    stand_in = Loads(load_fake)
    monkeypatch.setattr(loading, "load", stand_in)
    monkeypatch.setattr(both, "missing", lambda engine: None)
    return stand_in


def test_both_get_what_both_can_use_and_each_its_own(loads: Loads):
    opt = {"threads": 2, "flash_attn": True, "scheduling_policy": "priority"}
    pair = load_both(MODEL, ctx=512, dtype="float32", block_size=64, options=opt)
    vllm, llamacpp = loads.asked
    assert vllm == {
        "engine": "vllm", "name": "smollm2-135m-vllm", "ctx": 512, "dtype": "float32", "block_size": 64,
        "options": {"threads": 2, "scheduling_policy": "priority"},
    }  # fmt: skip
    assert llamacpp == {
        "engine": "llamacpp", "name": "smollm2-135m-llamacpp", "ctx": 512, "quant": "F32",
        "options": {"threads": 2, "flash_attn": True},
    }  # fmt: skip
    assert isinstance(pair, both.Both)
    assert [handle.alive for handle in pair] == [True, True]
    pair.unload()
    assert not llmlab.handles()


@pytest.mark.parametrize(
    ("dtype", "quant", "taken"),
    [("float32", None, "F32"), ("float16", None, "F16"), ("bfloat16", None, "F16"), ("float32", "Q8_0", "Q8_0")],
)
def test_llamacpp_keeps_weights_as_vllm_computes_in(loads: Loads, dtype: str, quant: str | None, taken: str):
    loads.dtype = dtype
    load_both(MODEL, quant=quant)
    assert loads.asked[1]["quant"] == taken


def test_a_name_is_given_to_both(loads: Loads):
    load_both(MODEL, name="smol")
    load_both(MODEL)
    load_both(MODEL)
    assert list(llmlab.handles())[:2] == ["smol-vllm", "smol-llamacpp"]
    assert list(llmlab.handles())[-2:] == ["smollm2-135m-vllm-2", "smollm2-135m-llamacpp-2"]


def test_when_the_second_cannot_be_loaded_the_first_is_gone_too(loads: Loads):
    loads.broken = "llamacpp"
    with pytest.raises(EngineError, match="llamacpp is broken"):
        load_both(MODEL)
    assert not llmlab.handles()


def test_memory_is_weighed_for_both_together_before_either_is_loaded(loads: Loads):
    loads.free_bytes = 2 * GB  # 1.5 GB for each
    with pytest.raises(
        DoesNotFit, match=r"needs 3\.00 GB .* 2\.00 GB of RAM are free\. Try `%llm load smollm2-135m -e"
    ):
        load_both(MODEL)
    assert not loads.asked
    fit = load_both(MODEL, dry_run=True)
    assert isinstance(fit, Fit)
    assert (fit.engine, fit.quant, fit.weights_bytes, fit.ok) == ("both", "F32", GB, False)


def test_a_gpu_has_memory_of_its_own(loads: Loads):
    loads.gpu, loads.free_bytes = True, 2 * GB
    load_both(MODEL)
    assert len(loads.asked) == 2


def test_every_option_of_llamacpp_has_its_place():
    llamacpp = pytest.importorskip("llmlab.engines.llamacpp")
    assert set(llamacpp.OPTIONS) == SHARED_OPTIONS | LLAMACPP_OPTIONS
