"""Async scheduling, as vLLM does it on a GPU: step i + 1 is scheduled before the tokens of step i are known.

vLLM switches it off on a CPU, where nothing overlaps; here it is switched on again, so that the order of events is that
of a GPU.
"""

from __future__ import annotations

import random

import pytest

from llmlab.trace import Trace
from tests.engines.serving import reason, request, text, token_ids
from tests.engines.vllm_support import CROWD, engine, no_block_is_held, serve

pytestmark = pytest.mark.slow
COUNT = "Count: one, two, three,"


@pytest.fixture(scope="module")
def on():
    from vllm.platforms.cpu import CpuPlatform

    decide = CpuPlatform.check_and_update_config.__func__

    def decide_and_overlap(cls, config):
        decide(cls, config)
        config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", classmethod(decide_and_overlap))
        loaded = engine()
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(on):
    assert type(on.core.scheduler).__name__ == "AsyncScheduler"
    yield
    assert not on.has_unfinished_requests() and not on.core.is_in_flight and no_block_is_held(on)
    assert (on._tracer.num_errors, on._tracer.last_error) == (0, None)


def test_a_crowd_with_preemptions_has_a_sound_trace_and_the_answers_of_each_alone(on):
    asked = dict(max_tokens=40, ignore_eos=True)
    together = serve(on, [request(on, f"r{i}", prompt, **asked) for i, prompt in enumerate(CROWD)])
    assert sum(len(step.preempted) for step in together.step_records) > 0
    assert together.validate() == []
    for i in (9,):
        assert token_ids(serve(on, [request(on, "r", CROWD[i], **asked)]), "r") == token_ids(together, f"r{i}")


def test_a_stop_string_ends_a_request_that_is_already_scheduled_again(on):
    whole = text(serve(on, [request(on, "r", COUNT, max_tokens=20)]), "r")
    word = whole.split()[2]
    asked = [request(on, "r", COUNT, max_tokens=20, stop=[word]), request(on, "s", COUNT, max_tokens=20)]
    trace = serve(on, asked)
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
