"""The real llama.cpp behind a real host, on days when everything goes wrong. A few rounds here, many in `make soak`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmlab import models
from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import EngineDied, EngineError, ModelError, RequestError

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.slow
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
PROMPTS = [f"Write a story about the number {i}." for i in range(16)]
LoadLlama = Callable[..., EngineHandle]


@pytest.fixture(scope="module", autouse=True)
def unloaded_at_the_end() -> Iterator[None]:
    yield
    registry.unload(all=True)


def llama(quant: str = "Q4_1", **arguments: Any) -> EngineHandle:
    handle = load("smollm2-135m", engine="llamacpp", quant=quant, **arguments)
    assert isinstance(handle, EngineHandle)
    return handle


def one_death(chance: random.Random, sign: signal.Signals) -> None:
    eng = llama()
    run = eng.batch(PROMPTS, max_tokens=200)
    time.sleep(chance.uniform(0.0, 1.0))
    started = time.monotonic()
    os.kill(eng.pid, sign)
    with pytest.raises(EngineDied) as caught:
        run.wait()
    assert time.monotonic() - started < 5
    assert "did not answer" in str(caught.value) if sign == signal.SIGSTOP else sign.name in str(caught.value)
    assert "%llm load smollm2-135m -e llamacpp -q Q4_1" in str(caught.value)
    trace = run.trace
    assert [str(violation) for violation in trace.validate()] == []
    texts = {r.request_id: r.text for r in caught.value.results}
    recorded = dict.fromkeys(texts, "")
    for step in trace.step_records:
        for token in step.tokens:
            recorded[token.request_id] += token.text
    assert texts == recorded
    assert not psutil.pid_exists(eng.pid) or psutil.Process(eng.pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", range(3))
def test_a_killed_host_keeps_partial_answers_and_a_sound_trace(number: int):
    one_death(random.Random(number), SIGNALS[number % 3])


@pytest.mark.soak
@pytest.mark.parametrize("number", range(3, 100))
def test_a_killed_host_keeps_partial_answers_and_a_sound_trace_every_time(number: int):
    one_death(random.Random(number), SIGNALS[number % 3])


def many_stops(num_stops: int) -> None:
    # Float32, so that the answer is the same whatever cells it lies in.
    eng, chance = llama("F32", options={"prefix_caching": True}), random.Random(7)
    question = {"prompt": "What is the capital of France?", "max_tokens": 12}
    answer = eng.batch([question]).wait()[0].text
    assert "Paris" in answer
    for number in range(num_stops):
        run = eng.batch(chance.sample(PROMPTS, chance.randint(1, 16)), max_tokens=100)
        time.sleep(chance.uniform(0.0, 0.5))
        started = time.monotonic()
        run.stop()
        assert time.monotonic() - started < 2
        assert {result.finish_reason for result in run.results} == {"interrupted"}
        assert eng.memory()["kv_used"] == 0
        if number % 5 == 0:
            assert eng.batch([question]).wait()[0].text == answer
    assert [str(violation) for violation in eng.trace.validate()] == []


def test_stops_at_random_moments_leak_no_cell_and_the_next_answer_is_right():
    many_stops(10)


@pytest.mark.soak
def test_hundreds_of_stops_leak_no_cell_and_the_next_answer_is_right():
    many_stops(300)


def test_a_killed_kernel_takes_its_host_along_in_the_middle_of_a_forward_pass():
    code = (
        "import llmlab; eng = llmlab.load('smollm2-135m', engine='llamacpp', quant='Q4_1', step_tokens=2048,"
        " kv_tokens=8192, ctx=8192); run = eng.batch(['word ' * 2000] * 4); print(eng.pid, flush=True); run.wait()"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert kernel.stdout is not None
    pid = int(kernel.stdout.readline())
    time.sleep(0.5)
    assert psutil.Process(pid).num_threads() > 1
    kernel.kill()
    kernel.wait()
    deadline = time.monotonic() + 2
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the host outlives its kernel"
        time.sleep(0.02)


def test_two_hosts_at_once_answer_both():
    one, two = llama(), llama()
    runs = [eng.batch(PROMPTS[:4], max_tokens=12) for eng in (one, two)]
    texts = [[result.text for result in run.wait()] for run in runs]
    assert one.pid != two.pid
    assert all(text for both in texts for text in both)
    one.unload()
    assert two.generate(PROMPTS[0], max_tokens=4).text
    two.unload()


def test_requests_that_cannot_be_served_say_why_and_the_others_go_on():
    eng = llama(ctx=256)
    run = eng.batch(["Hi", "", "word " * 400, {"prompt": "Hi", "json_schema": {"type": "nonsense"}}], max_tokens=4)
    good, empty, long, _ = run.wait()
    assert good.finish_reason in ("length", "stop")
    assert empty.error == "The prompt is empty. Give it at least one word."
    assert long.error is not None
    assert "max_model_len is 256" in long.error
    for wrong in ({"max_tokens": 0}, {"temperature": -0.5}, {"stop": [3]}):
        with pytest.raises(RequestError):
            eng.generate("Hi", **wrong)
    assert eng.generate("Hi", max_tokens=2).num_output_tokens == 2
    eng.unload()


def test_ten_thousand_prompts_at_once_stream_from_the_first_second_on_and_can_be_stopped():
    eng = llama()
    started = time.monotonic()
    run = eng.batch((f"Number {i}" for i in range(10_000)), max_tokens=8)
    first = next(iter(run))
    assert time.monotonic() - started < 5
    assert first.t_s < 5
    time.sleep(1)
    run.stop()
    assert time.monotonic() - started < 12
    assert len(run.results) == 10_000
    assert eng.memory()["kv_used"] == 0
    assert eng.generate("Hi", max_tokens=2).num_output_tokens == 2
    eng.unload()


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def wrong_magic(content: bytes) -> bytes:
    return b"GGML" + content[4:]


def no_tensors_at_all(content: bytes) -> bytes:
    return content[:24]


@pytest.mark.parametrize("damage", [cut_short, wrong_magic, no_tensors_at_all])
def test_a_damaged_model_file_is_refused_before_a_process_is_started(damage: Callable[[bytes], bytes], tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(damage(models.get("smollm2-135m").gguf("Q4_1").read_bytes()))
    before = set(psutil.Process().children())
    with pytest.raises(ModelError, match=r"model\.gguf"):
        load(str(path), engine="llamacpp")
    assert set(psutil.Process().children()) <= before


def test_a_model_that_does_not_fit_is_refused_with_what_would():
    fit = load("smollm2-135m", engine="llamacpp", dry_run=True)
    assert fit.ok
    with pytest.raises(ModelError, match=r"GB of RAM are free. Try `%llm load"):
        load("smollm2-135m", engine="llamacpp", kv_tokens=2**31)


def test_an_option_that_the_engine_does_not_have_is_refused_by_name():
    with pytest.raises(EngineError, match="Unknown option 'thread'"):
        load("smollm2-135m", engine="llamacpp", quant="Q4_1", options={"thread": 2})
