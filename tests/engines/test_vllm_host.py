"""vLLM as a notebook has it: loaded by name, in a process of its own."""

from __future__ import annotations

import time

import psutil
import pytest

from llmlab.engines.both import Both
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import RequestError
from tests.engines.vllm_support import CROWD

pytestmark = pytest.mark.slow
SMALL = {"kv_tokens": 640, "ctx": 384, "seqs": 8, "step_tokens": 128, "options": {"threads": 1}}
QUESTION = "What is the capital of France?"


@pytest.fixture
def eng(both: Both) -> EngineHandle:
    return both.vllm


def test_it_answers_and_says_what_it_is(eng):
    result = eng.generate(QUESTION, max_tokens=20)
    assert (result.text, result.finish_reason) == ("The capital of France is Paris.", "stop")
    assert eng.header.dtype == "float32" and eng.quant is None and eng.notes == ()
    assert "vllm 0." in repr(eng)
    assert result.trace.validate() == []


def test_an_answer_streams_while_it_comes(eng):
    events = list(eng.stream(QUESTION, max_tokens=6, ignore_eos=True))
    assert "".join(event.text for event in events) == "The capital of France is Paris"
    assert len({event.t_s for event in events}) == 6


def test_a_batch_comes_with_a_sound_trace_of_its_blocks(eng):
    run = eng.batch(CROWD, max_tokens=16, ignore_eos=True)
    run.wait()
    assert [result.num_output_tokens for result in run.results] == [16] * 12
    assert run.trace.validate() == []
    assert max(len(step.scheduled) for step in run.trace.step_records) == 8


def test_a_stopped_run_leaves_the_engine_as_it_was(eng):
    run = eng.batch(CROWD, max_tokens=250, ignore_eos=True)
    time.sleep(0.5)
    run.stop()
    assert {result.finish_reason for result in run.results} == {"interrupted"}
    assert eng.generate(QUESTION, max_tokens=20).text == "The capital of France is Paris."
    assert eng.memory()["kv_used"] == 0
    assert eng.trace.validate() == []


def test_it_tells_what_it_was_asked_and_what_it_cannot(eng):
    ids = eng.tokenize("The capital of France is")
    assert eng.detokenize(ids) == "The capital of France is"
    assert eng.detokenize([int(eng.logits(ids)[-1].argmax())]) == " Paris"
    with pytest.raises(RequestError, match=r"priority is 1.*Load it with `--opt scheduling_policy=priority`"):
        eng.generate(QUESTION, priority=1)
    assert "Loading safetensors" in eng.logs(10_000)  # whatever VLLM_LOGGING_LEVEL is


@pytest.mark.soak
def test_unloading_gives_the_memory_back():
    rss = []
    for _ in range(3):  # what a notebook imports at its first load stays
        with load("smollm2-135m", "vllm", **SMALL) as eng:
            eng.generate(QUESTION, max_tokens=20)
        assert not psutil.pid_exists(eng.pid)
        rss.append(psutil.Process().memory_info().rss)
    assert rss[-1] - rss[0] < 50e6


@pytest.mark.soak
def test_in_bfloat16_it_passes_the_self_test_or_ends_in_float32_with_a_note():
    with load("smollm2-135m", "vllm", dtype="bf16", **SMALL) as eng:
        assert "Paris" in eng.generate("The capital of France is", max_tokens=4, raw=True).text
        if eng.header.dtype == "float32":  # a machine whose bfloat16 is broken
            assert len(eng.notes) == 1 and "bfloat16" in eng.notes[0]
        else:
            assert (eng.header.dtype, eng.notes) == ("bfloat16", ())


@pytest.mark.soak
def test_drafts_of_an_ngram_change_the_number_of_steps_and_not_the_answer():
    options = {"threads": 1, "speculative_config": '{"method": "ngram", "num_speculative_tokens": 3}'}
    prompt, asked = "one two three one two three one two three", dict(max_tokens=24, raw=True, ignore_eos=True)
    with load("smollm2-135m", "vllm", **{**SMALL, "options": {"threads": 1}}) as plain:
        expected = plain.generate(prompt, **asked)
    with load("smollm2-135m", "vllm", **{**SMALL, "options": options}) as eng:
        assert eng.capabilities.speculative
        drafted = eng.generate(prompt, **asked)
        assert drafted.token_ids == expected.token_ids
        steps = drafted.trace.step_records
        assert len(steps) < 24 and sum(row.num_draft_tokens for step in steps for row in step.scheduled) > 0
        assert drafted.trace.validate() == []
        word = expected.text.split()[3]
        stopped = eng.generate(prompt, stop=[word], **asked)
        assert stopped.text == expected.text[: expected.text.index(word)] and stopped.stopped_by == word
        assert stopped.trace.validate() == []
