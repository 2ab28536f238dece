"""The simulated engine behind a handle: it streams at its own pace, stops, refuses, and says what it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.engines.simulated import MAX_LAG_S
from llmlab.errors import EngineError, RequestError
from llmlab.shipped import shipped

RECORDED = shipped("traces/burst_of_64.jsonl.gz")


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineHandle]:
    with llmlab.load("smollm2-135m", engine="simulated", seqs=8, kv_tokens=1024, isolation="inline") as handle:
        yield handle


def test_an_answer_says_what_it_is_and_so_does_its_footer(engine: EngineHandle):
    result = engine.generate("Why is the sky blue?", system="Be brief.", max_tokens=12)
    assert result.text.startswith("This answer is simulated: no model was")
    assert (result.num_output_tokens, result.finish_reason) == (12, "length")
    assert result.footer.startswith("simulated as laptop · smollm2-135m F16")
    assert engine.header.source == "simulated"
    assert engine.detokenize(engine.tokenize("Why is the sky blue?")) == "Why is the sky blue?"


def test_a_batch_under_pressure_gives_a_sound_trace(engine: EngineHandle):
    run = engine.batch([f"Question {i}: why?" for i in range(24)], max_tokens=24)
    assert {result.finish_reason for result in run.wait()} == {"length"}
    assert run.trace.validate() == []
    assert max(step.num_running for step in run.trace.step_records) == 8


def test_it_takes_the_time_that_its_steps_say(engine: EngineHandle):
    started = time.monotonic()
    run = engine.batch(["Hello"], max_tokens=30)
    run.wait()
    told_s = sum(step.forward_s for step in run.trace.step_records)
    assert told_s > 0.2  # 269 MB at 24 GB/s for each of 30 tokens
    assert time.monotonic() - started >= told_s - MAX_LAG_S  # the first step may begin where the last one ended


def test_a_stop_ends_the_answer_and_the_engine_goes_on(engine: EngineHandle):
    stream = engine.stream("Hello", max_tokens=200)
    for _ in range(3):
        next(stream)
    stream.close()
    assert stream.result.finish_reason == "interrupted"
    assert engine.generate("Hello again", max_tokens=4).num_output_tokens == 4
    assert engine.trace.validate() == []


def test_stop_strings_and_seeds_work(engine: EngineHandle):
    assert engine.generate("Hello", max_tokens=50, stop=["model"]).text == "This answer is simulated: no "
    with llmlab.load(
        "smollm2-135m", engine="simulated", isolation="inline", options={"mean_tokens": 10, "machine": "h200"}
    ) as other:
        lengths = [[r.num_output_tokens for r in other.batch(["a"] * 12, seed=s).wait()] for s in (1, 1, 2)]
    assert lengths[0] == lengths[1] != lengths[2]
    assert 3 < sum(lengths[0]) / 12 < 30


def test_it_can_be_as_fast_as_a_recorded_engine():
    with llmlab.load(str(RECORDED), engine="simulated", isolation="inline", kv_tokens=2048) as handle:
        header = handle.header
        assert (header.engine_version, header.model, header.source) == ("as vllm 0.26.0", "smollm2-135m", "simulated")
        assert (header.max_num_seqs, header.token_budget, header.num_blocks) == (32, 512, 128)


def test_what_it_cannot_do_it_says(engine: EngineHandle):
    with pytest.raises(RequestError, match=r"max_model_len is 1024. Load with a larger --ctx"):
        engine.generate("word " * 1100)
    with pytest.raises(RequestError, match="A simulated answer follows no json_schema"):
        engine.generate("Hello", json_schema={"type": "object"})
    with pytest.raises(EngineError, match=r"Unknown option 'machin'.*Did you mean 'machine'"):
        llmlab.load("smollm2-135m", engine="simulated", isolation="inline", options={"machin": "h200"})
    with pytest.raises(EngineError, match="Unknown machine 'h20'"):
        llmlab.load("smollm2-135m", engine="simulated", isolation="inline", options={"machine": "h20"})
