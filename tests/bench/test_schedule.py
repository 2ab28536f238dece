"""How late a request was: against traces written by hand, where each answer can be read off."""

from __future__ import annotations

import pytest

from llmlab.bench.schedule import lateness_s
from llmlab.trace import Header, Request, ScheduledRequest, Step, Trace


def step(
    number: int, start_s: float, end_s: float, *scheduled: str, waiting: tuple[str, ...] = (), more: int = 0
) -> Step:
    rows = tuple(
        ScheduledRequest(
            request_id=name,
            phase="decode",
            num_tokens=1,
            num_computed_tokens=1,
            num_prompt_tokens=1,
            num_output_tokens=1,
        )
        for name in scheduled
    )
    return Step(
        step=number, t_s=end_s, schedule_s=0.0, forward_s=end_s - start_s, update_s=0.0, scheduled=rows,
        waiting=waiting, num_waiting=len(waiting) + more,
    )  # fmt: skip


def trace(arrivals: dict[str, float], *steps: Step) -> Trace:
    requests = tuple(Request(request_id=name, arrival_s=at_s, prompt_token_ids=(1,)) for name, at_s in arrivals.items())
    return Trace(Header(engine="simulated"), requests, steps)


def test_on_an_idle_engine_it_is_the_time_to_the_step_that_serves_it():
    assert lateness_s(trace({"a": 1.0}, step(0, 1.003, 1.1, "a"))) == pytest.approx((0.003,))


def test_the_step_that_runs_when_it_comes_is_not_counted():
    found = lateness_s(trace({"a": 0.0, "b": 0.2}, step(0, 0.0, 1.0, "a"), step(1, 1.004, 1.5, "a", "b")))
    assert found == pytest.approx((0.0, 0.004))


def test_who_waits_in_the_engines_queue_has_arrived():
    steps = (step(0, 0.0, 1.0, "a"), step(1, 1.0, 2.0, "a", waiting=("b",)), step(2, 2.0, 3.0, "b"))
    assert lateness_s(trace({"a": 0.0, "b": 0.5}, *steps)) == pytest.approx((0.0, 0.0))


def test_who_is_in_no_step_though_there_was_one_is_late():
    steps = (step(0, 0.0, 1.0, "a"), step(1, 1.0, 2.0, "a"), step(2, 2.0, 3.0, "b"))
    assert lateness_s(trace({"a": 0.0, "b": 0.5}, *steps)) == pytest.approx((0.0, 1.0))


def test_nobody_is_called_late_behind_a_queue_that_the_trace_does_not_tell_whole():
    steps = (step(0, 0.0, 1.0, "a"), step(1, 1.0, 2.0, "a", waiting=("c",), more=80), step(2, 2.0, 3.0, "b"))
    assert lateness_s(trace({"a": 0.0, "b": 0.5}, *steps)) == pytest.approx((0.0,))


def test_steps_without_durations_tell_nothing():
    assert lateness_s(trace({"a": 0.0}, Step(step=0, t_s=1.0))) == ()
