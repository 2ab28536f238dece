"""vLLM on an NVIDIA GPU: python -m pytest -m gpu. What it must hold in speed is in benchmarks/bench_vllm.py."""

from __future__ import annotations

import random
import time

import psutil
import pytest

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.engines.packages import has_nvidia_gpu
from llmlab.models.memory import free_gpu_bytes
from tests.engines.vllm_support import CROWD

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not has_nvidia_gpu(), reason="needs an NVIDIA GPU"),
]
# 40 blocks: not all of the crowd fits, so that some are preempted
SMALL = {"kv_tokens": 640, "ctx": 384, "seqs": 8, "step_tokens": 128, "dtype": "bfloat16"}
EAGER = {"enforce_eager": True}
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def eng():
    loaded = load("smollm2-135m", "vllm", **SMALL, options=EAGER)
    assert isinstance(loaded, EngineHandle)
    yield loaded
    loaded.unload()


def test_it_schedules_ahead_in_bfloat16_and_passes_its_self_test(eng):
    assert "Asynchronous scheduling is enabled" in eng.logs(10_000)
    assert (eng.header.dtype, eng.header.block_size, eng.notes) == ("bfloat16", 16, ())
    assert "NVIDIA" in eng.header.device
    assert eng.generate(QUESTION, max_tokens=20).text == "The capital of France is Paris."


def test_a_crowd_with_preemptions_has_a_sound_trace(eng):
    run = eng.batch(CROWD, max_tokens=60, temperature=0.0, ignore_eos=True)
    assert [result.num_output_tokens for result in run.wait()] == [60] * 12
    steps = run.trace.step_records
    assert run.trace.validate() == []
    assert sum(len(step.preempted) for step in steps) > 0 and sum(len(step.prefix_hits) for step in steps) > 0


def test_after_25_random_stops_the_same_prompts_have_the_same_answers(eng):
    asked = dict(temperature=0.0, max_tokens=24, ignore_eos=True)
    # one at a time: in bfloat16 the numbers of a batch are not those of a request alone
    before = [eng.generate(prompt, **asked).token_ids for prompt in CROWD[:6]]
    chance = random.Random(1)
    for _ in range(25):
        run = eng.batch(CROWD, temperature=0.0, max_tokens=250, ignore_eos=True)
        time.sleep(chance.uniform(0.0, 0.5))
        run.stop()
    assert eng.memory()["kv_used"] == 0
    assert [eng.generate(prompt, **asked).token_ids for prompt in CROWD[:6]] == before
    assert eng.trace.validate() == []


def test_log_probabilities_are_those_of_the_engine(eng):
    ids = eng.tokenize("The capital of France is")
    result = eng.generate(ids, max_tokens=1, temperature=0.0, logprobs=3)
    assert result.text == " Paris"
    token = result.tokens[0]
    assert token.logprob == pytest.approx(float(eng.logits(ids)[-1][token.token_id]), abs=0.05)


def test_unloading_gives_the_memory_of_the_gpu_back():
    before = free_gpu_bytes()
    eng = load("smollm2-135m", "vllm", dtype="bfloat16", ctx=512, options=EAGER)
    assert eng.generate(QUESTION, max_tokens=20).text == "The capital of France is Paris."
    given_back = eng.unload()
    assert not psutil.pid_exists(eng.pid)
    assert given_back.gpu_free_before_bytes < before - 2e9 and given_back.gpu_free_after_bytes == before
    assert "MB free on the GPU" in repr(given_back)
