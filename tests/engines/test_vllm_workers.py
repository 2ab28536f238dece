"""vLLM with several workers on this machine's CPU: each layer split, or each worker some of the layers; in our host."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psutil
import pytest

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import EngineDied
from llmlab.models import get, kv_bytes_per_token
from tests.engines.vllm_support import CROWD

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]  # each worker takes half a minute to start, and 1.2 GB
# 20 blocks of 32
SMALL = {"kv_tokens": 640, "ctx": 384, "seqs": 8, "step_tokens": 128}
QUESTION = "What is the capital of France?"


def on_workers(**sizes: int) -> EngineHandle:
    loaded = load("smollm2-135m", "vllm", **SMALL, options={"threads": 1, **sizes})
    assert isinstance(loaded, EngineHandle)
    return loaded


def processes_of(eng: EngineHandle) -> list[psutil.Process]:
    return psutil.Process(eng.pid).children(recursive=True)


def gone(processes: list[psutil.Process], seconds: float = 15.0) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.fixture(scope="module", params=["tensor_parallel_size", "pipeline_parallel_size"])
def split(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, EngineHandle]]:
    """With real weights: SmolLM2 has 9 heads and 3 KV heads for three workers, or 30 layers for two."""
    size = {"tensor_parallel_size": 3, "pipeline_parallel_size": 2}[request.param]
    eng = on_workers(**{request.param: size})
    workers = processes_of(eng)
    yield request.param, size, eng
    eng.unload()
    assert gone([*workers])


def test_several_workers_answer_as_one_does_and_the_trace_is_sound(split: tuple[str, int, EngineHandle]):
    _, size, eng = split
    answer = eng.generate(QUESTION, max_tokens=20)
    assert (answer.text, answer.finish_reason) == ("The capital of France is Paris.", "stop")
    assert answer.trace.validate() == []
    assert eng.header.device == f"{size} x CPU"
    # 20 blocks and the one that nobody gets, of all workers together
    assert eng.header.kv_cache_bytes == 21 * 32 * kv_bytes_per_token(get("smollm2-135m").config, 4)


def test_a_crowd_is_scheduled_once_for_all_workers(split: tuple[str, int, EngineHandle]):
    way, _, eng = split
    run = eng.batch(CROWD, max_tokens=16, ignore_eos=True)
    assert [result.num_output_tokens for result in run.wait()] == [16] * 12
    steps = run.trace.step_records
    assert run.trace.validate() == []
    batches = [{row.request_id for row in step.scheduled} for step in steps]
    if way == "tensor_parallel_size":
        assert max(map(len, batches)) == 8
    else:  # two batches take turns, each with requests of its own
        assert sum(one.isdisjoint(other) for one, other in pairwise(batches)) > len(batches) / 2
    assert eng.memory()["kv_used"] == 0


def test_a_stopped_run_leaves_all_workers_as_they_were(split: tuple[str, int, EngineHandle]):
    _, _, eng = split
    run = eng.batch(CROWD, max_tokens=250, ignore_eos=True)
    time.sleep(1.0)
    run.stop()
    assert {result.finish_reason for result in run.results} == {"interrupted"}
    assert eng.generate(QUESTION, max_tokens=20).text == "The capital of France is Paris."
    assert eng.memory()["kv_used"] == 0 and eng.trace.validate() == []


@pytest.mark.parametrize("victim", [lambda eng: processes_of(eng)[-1].pid, lambda eng: eng.pid], ids=["worker", "host"])
def test_when_one_process_dies_the_notebook_is_told_and_none_is_left_behind(victim: Callable[[Any], int]):
    eng = on_workers(pipeline_parallel_size=2)
    everybody = [psutil.Process(eng.pid), *processes_of(eng)]
    run = eng.batch(CROWD, max_tokens=250, ignore_eos=True)
    time.sleep(1.0)
    os.kill(victim(eng), signal.SIGKILL)
    with pytest.raises(EngineDied):
        run.wait(timeout=60)
    eng.unload()
    assert gone(everybody)
