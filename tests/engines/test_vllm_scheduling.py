"""Batches on vLLM's own scheduler, with a tiny model: crowds, preemptions, stops, failed passes; sync and async.

Async is what vLLM does on a GPU: step i + 1 is scheduled before the tokens of step i are known. It switches that off on
a CPU, where nothing overlaps; here it is switched on again, so that the order of events is that of a GPU.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmlab.trace import Trace
from tests.engines.serving import reason, request, text, token_ids
from tests.engines.vllm_support import TINY_CROWD as CROWD
from tests.engines.vllm_support import TINY_PREFIX as PREFIX
from tests.engines.vllm_support import (
    FollowedEngine,
    answers_outlive_25_stops,
    crowd_equals_each_alone,
    no_block_is_held,
    serve,
    tiny_engine,
)

pytestmark = pytest.mark.slow
COUNT = "Count: one, two, three,"
ASYNC = pytest.mark.parametrize("on", ["async"], indirect=True)
SYNC = pytest.mark.parametrize("on", ["sync"], indirect=True)


@pytest.fixture(scope="module", params=["sync", "async"])
def on(request: pytest.FixtureRequest, tiny: Path) -> Iterator[FollowedEngine]:
    from vllm.platforms.cpu import CpuPlatform

    decide = CpuPlatform.check_and_update_config.__func__

    def decide_and_overlap(cls, config):
        decide(cls, config)
        config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "async":
            patch.setattr(CpuPlatform, "check_and_update_config", classmethod(decide_and_overlap))
        loaded = tiny_engine(tiny)
    assert type(loaded.core.scheduler).__name__ == {"sync": "Scheduler", "async": "AsyncScheduler"}[request.param]
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(on):
    yield
    assert not on.has_unfinished_requests() and not on.core.is_in_flight and no_block_is_held(on)
    assert (on._tracer.num_errors, on._tracer.last_error) == (0, None)


def test_a_crowd_with_preemptions_and_shared_prefixes_equals_each_request_alone(on):
    crowd_equals_each_alone(on, CROWD, PREFIX)


def test_a_stop_string_ends_a_request_that_is_already_scheduled_again(on):
    asked = dict(max_tokens=20, ignore_eos=True)
    whole = text(serve(on, [request(on, "r", COUNT, **asked)]), "r")
    word = whole[8:12]
    assert whole.index(word) > 0
    trace = serve(on, [request(on, "r", COUNT, stop=[word], **asked), request(on, "s", COUNT, **asked)])
    assert (text(trace, "r"), text(trace, "s")) == (whole[: whole.index(word)], whole)
    assert (reason(trace, "r"), reason(trace, "s")) == ("stop", "length")
    assert trace.validate() == []


def test_random_stops_leave_sound_traces_and_no_blocks(on):
    asked = [request(on, f"r{i}", prompt, max_tokens=40, ignore_eos=True) for i, prompt in enumerate(CROWD)]
    header, dice, alive, steps = on.header_now, random.Random(1), [r.request_id for r in asked], []
    for each in asked:
        on.add_request(each)
    while on.has_unfinished_requests():
        steps.append(on.step())
        if alive and dice.random() < 0.3:
            on.abort_request(alive.pop(dice.randrange(len(alive))))
    trace = Trace(header, tuple(asked), tuple(steps))
    assert trace.validate() == []
    assert sum(reason(trace, each.request_id) == "abort" for each in asked) >= 6


def test_after_25_random_stops_the_same_prompts_have_the_same_answers(on):
    answers_outlive_25_stops(on, [[*PREFIX, *range(200 + 50 * i, 220 + 50 * i)] for i in range(6)])


@ASYNC
def test_the_last_request_is_aborted_while_its_step_is_in_flight(on):
    asked = request(on, "r", "A story about rivers:", max_tokens=50, ignore_eos=True)
    header, steps = on.header_now, []
    on.add_request(asked)
    steps.append(on.step())
    assert on.core.is_in_flight
    on.abort_request("r")
    while on.has_unfinished_requests():
        steps.append(on.step())
    trace = Trace(header, (asked,), tuple(steps))
    assert reason(trace, "r") == "abort" and trace.validate() == []


@SYNC
def test_a_forward_pass_that_raises_poisons_nothing(on):
    runner = on.core._core.model_executor.driver_worker.model_runner
    prompts = CROWD[::3]
    alone = [token_ids(serve(on, [request(on, "r", prompt, max_tokens=8)]), "r") for prompt in prompts]
    # Other tokens in every block: what is read without having been written is wrong.
    serve(on, [request(on, f"j{i}", range(300 - 50 * i, 500 - 50 * i), max_tokens=1) for i in range(3)])
    on.core.forget_prefixes()

    def raises(*args, **kwargs):
        raise RuntimeError("a kernel has failed")

    header, steps = on.header_now, []
    asked = [request(on, f"r{i}", prompt) for i, prompt in enumerate(prompts)]
    for each in asked:
        on.add_request(each)
    runner.model.forward = raises
    try:
        with pytest.raises(RuntimeError, match="a kernel has failed"):
            on.step()
    finally:
        del runner.model.forward
    for each in asked:  # as the loop does
        on.abort_request(each.request_id)
    while on.has_unfinished_requests():
        steps.append(on.step())
    assert no_block_is_held(on)
    again = [request(on, f"a{i}", prompt, max_tokens=8) for i, prompt in enumerate(prompts)]
    first, others = serve(on, again[:1]), serve(on, again[1:])
    assert [step.prefix_hits for step in first.step_records if step.prefix_hits] == []
    assert [token_ids(first, "a0"), *(token_ids(others, f"a{i}") for i in (1, 2, 3))] == alone
    whole = Trace(header, (*asked, *again), (*steps, *first.step_records, *others.step_records))
    assert whole.validate() == []


@ASYNC
def test_a_forward_pass_that_raises_leaves_nothing_in_flight(on):
    runner = on.core._core.model_executor.driver_worker.model_runner
    alone = token_ids(serve(on, [request(on, "r", CROWD[0], max_tokens=8)]), "r")
    forward, num_calls = runner.model.forward, 0

    def raises_at_the_third_call(*args, **kwargs):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            raise RuntimeError("a kernel has failed")
        return forward(*args, **kwargs)

    names = [f"r{i}" for i in range(4)]
    for name, prompt in zip(names, CROWD, strict=False):
        on.add_request(request(on, name, prompt, ignore_eos=True))
    runner.model.forward = raises_at_the_third_call
    try:
        with pytest.raises(RuntimeError, match="a kernel has failed"):
            while True:
                on.step()
    finally:
        del runner.model.forward
    for name in names:
        on.abort_request(name)
    finished = {}
    while on.has_unfinished_requests():
        finished |= on.step().finished
    assert finished == dict.fromkeys(names, "abort")
    assert token_ids(serve(on, [request(on, "r", CROWD[0], max_tokens=8)]), "r") == alone
