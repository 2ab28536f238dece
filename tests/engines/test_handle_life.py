"""What a handle lives through: single steps, slow motion, failing steps, unloading. On the fake engine inline."""

from __future__ import annotations

import pickle

import pytest
from fake_loading import LoadFake, sound
from slow_to_load import LateEngine

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import EngineDied, EngineError, PlanRefused
from llmlab.scheduling.contracts import SchedulerState


def test_single_steps_give_their_records(load_fake: LoadFake):
    eng = load_fake()
    eng.pause()
    run = eng.batch(["abc"], max_tokens=4)
    (first,), second = eng.step(), eng.step(2)
    assert [row.phase for row in first.scheduled] == ["prefill"]
    assert [step.step for step in second] == [1, 2]
    assert run.results[0].text == "abc"
    assert len(eng.step(10)) == 1
    assert run.done
    assert eng.step(3) == ()


def test_slow_motion_slows_every_step_down_until_it_is_off(load_fake: LoadFake):
    eng = load_fake()
    eng.slow(0.05)
    slowly = eng.generate("abc", max_tokens=4)
    eng.slow(0)
    fast = eng.generate("abc", max_tokens=4)
    assert min(slowly.itl_s) >= 0.045
    assert min(fast.itl_s) < 0.045  # on a busy machine one of them may take long by itself


class Refused:
    """A policy with a bug."""

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        return {"nobody": 1}

    def victim(self, state: SchedulerState) -> str:
        return ""


def test_a_broken_policy_raises_its_sentence_and_the_engine_goes_on(load_fake: LoadFake):
    eng = load_fake(policy=Refused)
    for _ in range(2):
        with pytest.raises(PlanRefused, match="'nobody' is neither waiting nor running"):
            eng.generate("abc")
    assert eng.last is not None
    assert eng.last.finish_reason == "error"
    assert eng.alive
    sound(eng.trace)


def test_a_step_that_fails_keeps_the_partial_answers(load_fake: LoadFake):
    eng = load_fake(fail_at=3)
    run = eng.batch(["abc", "def"], max_tokens=9)
    with pytest.raises(EngineError, match="RuntimeError: the fake engine was told to fail"):
        run.wait()
    assert [result.text for result in run.results] == ["abc", "def"]
    assert eng.generate("abc", max_tokens=3).text == "abc"
    assert sound(run.trace).step_records[-1].finished


def test_tokens_and_texts_are_asked_of_the_engine(load_fake: LoadFake):
    eng = load_fake()
    assert eng.tokenize("hé") == [104, 233]
    assert eng.pieces([233]) == ["é".encode()]
    assert eng.detokenize([104, 233]) == "hé"
    assert eng.memory()["rss"] > 1e6
    with pytest.raises(EngineError, match=r"The fake engine has no logits\(\)"):
        eng.logits("abc")


def test_traces_of_runs_cut_out_of_a_long_session_are_sound(load_fake: LoadFake):
    eng = load_fake(seqs=4, num_cells=128, step_s=0.002)
    runs = [eng.batch([f"shared beginning {i % 3}", "short"], max_tokens=5 + i) for i in range(8)]
    for run in runs:
        run.wait()
    for run in runs:
        assert set(run.request_ids) <= {r.request_id for r in sound(run.trace).request_records}
    sound(eng.trace)


def test_unloading_ends_runs_and_keeps_results_and_traces(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)
    run = eng.batch(["abc"], max_tokens=200)
    next(iter(run))
    gone = eng.unload()
    assert gone.rss_before_bytes is not None
    assert "Unloaded a-model: " in repr(gone)
    assert run.results[0].finish_reason == "interrupted"
    assert run.results[0].text.startswith("a")
    assert sound(run.trace).step_records
    assert not eng.alive
    assert repr(eng) == "EngineHandle('a-model': a-model on fake_engine:FakeEngine, not loaded any more)"
    with pytest.raises(
        EngineDied,
        match=r"was unloaded. Load it again: `%llm load a-model -e fake_engine:FakeEngine --opt step_s=0.01`",
    ):
        eng.generate("abc")
    eng.unload()


def test_a_with_block_unloads_at_its_end(load_fake: LoadFake):
    with load_fake() as eng:
        assert eng.alive
    assert not eng.alive


def test_names_are_unique_and_the_last_one_loaded_is_current(load_fake: LoadFake):
    first, second, third = load_fake(), load_fake(), load_fake(name="mine")
    assert list(registry.handles()) == ["a-model", "a-model-2", "mine"]
    assert registry.current() is third
    assert registry.use("a-model") is first
    assert [(s.name, s.is_current) for s in registry.ps()] == [
        ("a-model", True),
        ("a-model-2", False),
        ("mine", False),
    ]
    with pytest.raises(EngineError, match="The name 'mine' is taken"):
        load_fake(name="mine")
    with pytest.raises(EngineError, match="Unknown engine name 'mini'"):
        registry.use("mini")
    registry.unload()
    assert registry.current() is third
    registry.unload("mine")
    assert registry.current() is second
    registry.unload(all=True)
    with pytest.raises(EngineError, match="No engine is loaded"):
        registry.unload()


def test_an_engine_that_does_not_load_says_why(load_fake: LoadFake):
    with pytest.raises(EngineError, match="no such thing here"):
        load_fake(refuse="no such thing here")
    assert registry.handles() == {}


def test_an_engine_that_was_given_up_while_it_loads_is_closed_when_it_has_loaded():
    with pytest.raises(EngineError, match=r"was not ready within 0.1 s"):
        load("a-model", "slow_to_load:LateEngine", isolation="inline", timeout=0.1)
    assert LateEngine.closed.wait(5)


def test_a_result_can_be_pickled_without_its_trace(load_fake: LoadFake):
    result = load_fake().generate("abc", max_tokens=3)
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    with pytest.raises(LookupError, match="belongs to no run"):
        _ = copy.trace


def test_a_handle_shows_what_it_holds(load_fake: LoadFake):
    eng = load_fake()
    assert isinstance(eng, EngineHandle)
    assert repr(eng) == f"EngineHandle('a-model': a-model on fake_engine:FakeEngine 1, pid {eng.pid})"
    assert eng.capabilities.kv == "cells"
    assert repr(eng.batch(["a"])) in ("Run(0 of 1 requests ended, 0 tokens)", "Run(1 of 1 requests ended, 256 tokens)")
