"""From what a user asks for to vLLM's own arguments; vLLM itself is not imported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmlab.engines import vllm_arguments
from llmlab.engines.base import EngineConfig
from llmlab.engines.vllm_arguments import dtype_name, engine_arguments, set_environment, trace_level
from llmlab.errors import EngineError


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    return str(tmp_path)


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(vllm_arguments, "is_cpu_build", lambda: request.param)
    return bool(request.param)


def arguments(folder: str, **config) -> dict:
    return engine_arguments(EngineConfig("vllm", "m", folder, **config))


def test_a_gpu_gets_vllms_own_defaults_and_a_cpu_small_ones(folder: str, on_cpu: bool):
    found = arguments(folder)
    always = {"model": folder, "seed": 0, "max_logprobs": -1, "disable_log_stats": True}
    if not on_cpu:
        assert found == {**always, "dtype": "auto"}
        return
    assert {**found, "kv_cache_memory_bytes": 0} == {
        **always,
        "dtype": "float32",
        "enforce_eager": True,
        "block_size": 32,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 256,
        "kv_cache_memory_bytes": 0,
        "num_gpu_blocks_override": 129,
        "max_model_len": 4096,
    }


def test_a_pipeline_on_a_cpu_gets_the_worker_that_it_needs(folder: str, on_cpu: bool):
    worker = "llmlab.engines.vllm_cpu_workers.StageWorker"
    assert arguments(folder, options={"pipeline_parallel_size": "2"}).get("worker_cls") == (worker if on_cpu else None)
    assert "worker_cls" not in arguments(folder, options={"tensor_parallel_size": "2"})
    own = {"pipeline_parallel_size": "2", "worker_cls": "my.Worker"}
    assert arguments(folder, options=own)["worker_cls"] == "my.Worker"


def test_the_room_is_what_was_asked_for_plus_the_block_that_nobody_gets(folder: str, on_cpu: bool):
    found = arguments(folder, kv_tokens=1000)
    blocks = 32 if on_cpu else 63
    assert found["num_gpu_blocks_override"] == blocks + 1
    assert found["max_model_len"] == blocks * found["block_size"]
    assert arguments(folder, kv_tokens=1000, max_model_len=100)["max_model_len"] == 100


def test_options_are_json_where_they_are_and_win(folder: str, on_cpu: bool):
    draft = '{"method": "ngram", "num_speculative_tokens": 3}'
    options = {"speculative_config": draft, "max_num_seqs": "4", "load_format": "dummy", "dtype": "half", "threads": 1}
    found = arguments(folder, max_num_seqs=8, options=options)
    assert found["speculative_config"] == {"method": "ngram", "num_speculative_tokens": 3}
    assert (found["max_num_seqs"], found["load_format"], found["dtype"]) == (4, "dummy", "half")
    assert "threads" not in found


def test_a_step_has_room_for_every_seat(folder: str, on_cpu: bool):
    assert arguments(folder, max_num_seqs=64, token_budget=32)["max_num_batched_tokens"] == 64


def test_there_is_room_for_adapters_when_they_are_asked_for(folder: str, on_cpu: bool):
    assert "enable_lora" not in arguments(folder)
    assert arguments(folder, options={"enable_lora": "true"})["max_loras"] == 4
    Path(folder, "adapter_config.json").write_text(json.dumps({"r": 40}))
    found = arguments(folder, lora=folder)
    assert (found["enable_lora"], found["max_lora_rank"]) == (True, 64)


def test_prefix_caching_has_the_name_it_has_on_llama_cpp(folder: str, on_cpu: bool):
    assert arguments(folder, options={"prefix_caching": False})["enable_prefix_caching"] is False


@pytest.mark.parametrize(("given", "name"), [("F32", "float32"), ("bf16", "bfloat16"), ("HALF", "float16")])
def test_a_dtype_has_many_names(given: str, name: str):
    assert dtype_name(given) == name


def test_wrong_names_are_refused_with_the_right_ones():
    with pytest.raises(EngineError, match=r"Unknown dtype 'float31'.*Did you mean 'float32'"):
        dtype_name("float31")
    with pytest.raises(EngineError, match=r"Unknown trace level 'all'\. Known: delta, full, off"):
        trace_level({"trace": "all"})


def test_the_environment_is_set_but_what_the_user_chose_stays(on_cpu: bool, monkeypatch: pytest.MonkeyPatch):
    for name in ("OMP_NUM_THREADS", "TORCH_COMPILE_DISABLE", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    set_environment({})
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
    assert ("OMP_NUM_THREADS" in os.environ, os.environ.get("TORCH_COMPILE_DISABLE")) == (
        on_cpu,
        "1" if on_cpu else None,
    )
    set_environment({"threads": 3})
    assert os.environ["OMP_NUM_THREADS"] == "3"
