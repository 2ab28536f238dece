"""The recorder: slices of a long session are sound traces, and its memory is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import FakeEngine

from llmlab.engines.base import EngineConfig
from llmlab.engines.messages import encode
from llmlab.engines.recorder import Recorder
from llmlab.trace import Request, Step, Trace
from llmlab.trace.example import two_requests

PROMPTS = [f"{'shared beginning of ' * (i % 2)}request {i}" for i in range(40)]


def recorded(max_bytes: int = 2**26, num_cells: int = 90) -> tuple[Recorder, list[int]]:
    """A session of 40 requests that come one by one; and the number of steps before each came."""
    engine = FakeEngine(EngineConfig("fake", "a-model", "", max_num_seqs=4, options={"num_cells": num_cells}))
    recorder, marks = Recorder(engine.header, max_bytes), []
    for number, text in enumerate(PROMPTS):
        request = Request(
            request_id=f"r{number}",
            arrival_s=0.001 * number,
            prompt_token_ids=tuple(engine.tokenize(text)),
            sampling={"max_tokens": 25 + number % 15},
        )
        engine.add_request(request)
        recorder.add_request(request)
        marks.append(recorder.num_steps)
        for _ in range(3):
            recorder.add_step(encode(engine.step()))
    while engine.has_unfinished_requests():
        recorder.add_step(encode(engine.step()))
    return recorder, marks


def broken_rules(trace: Trace) -> list[str]:
    return [str(violation) for violation in trace.validate()]


def test_the_whole_session_is_a_sound_trace():
    recorder, _ = recorded()
    trace = recorder.slice()
    assert broken_rules(trace) == []
    assert trace.header.kv_at_start is None
    assert trace.incidents == ()
    assert len(trace.request_records) == 40
    assert any(step.preempted for step in trace.step_records)
    assert any(step.prefix_hits for step in trace.step_records)


def test_every_slice_of_a_session_is_a_sound_trace():
    recorder, marks = recorded()
    for first in marks[::3]:
        for end in (first + 1, first + 7, recorder.num_steps):
            trace = recorder.slice(first, end)
            assert broken_rules(trace) == [], (first, end)
            assert len(trace.step_records) == end - first


def test_slices_do_not_depend_on_the_order_in_which_they_are_asked_for():
    asked_backwards, marks = recorded()
    fresh, _ = recorded()
    backwards = [asked_backwards.slice(first, first + 5).header.kv_at_start for first in reversed(marks)]
    assert [fresh.slice(first, first + 5).header.kv_at_start for first in marks] == backwards[::-1]


def test_what_has_not_ended_in_a_slice_is_named_as_cut():
    recorder, _ = recorded()
    trace = recorder.slice(0, 2, own=["r0"])
    (incident,) = trace.incidents
    assert (incident.incident, incident.requests) == ("cut", ("r0",))
    assert incident.t_s >= trace.step_records[-1].t_s


def test_after_a_death_the_newest_slice_says_so_and_older_ones_do_not():
    recorder, _ = recorded()
    recorder.note_death("The engine was killed.")
    (incident,) = recorder.slice(5).incidents
    assert (incident.incident, incident.text) == ("died", "The engine was killed.")
    assert {incident.incident for incident in recorder.slice(0, 5).incidents} == {"cut"}


@pytest.mark.parametrize("max_bytes", [2_000, 20_000])
def test_memory_is_bounded_and_what_is_left_is_sound(max_bytes: int):
    recorder, _ = recorded(max_bytes)
    whole, _ = recorded()
    assert recorder.num_bytes <= max_bytes < whole.num_bytes
    assert recorder.num_steps == whole.num_steps
    trace = recorder.slice()
    assert broken_rules(trace) == []
    assert 0 < len(trace.step_records) < whole.num_steps
    assert [step.step for step in trace.step_records] == list(
        range(whole.num_steps - len(trace.step_records), whole.num_steps)
    )
    assert len(trace.request_records) < 40


def test_what_ended_before_the_first_step_that_is_left_is_not_called_cut():
    recorder, _ = recorded(20_000, num_cells=400)
    trace = recorder.slice(own=recorder.request_ids)
    holders = trace.header.kv_at_start.written.keys()  # type: ignore[union-attr]
    assert holders - {row.request_id for step in trace.step_records for row in step.scheduled}
    assert trace.incidents == ()


def test_a_slice_that_was_folded_away_starts_later():
    recorder, _ = recorded(20_000)
    assert recorder.slice(0, 3).step_records == ()
    assert recorder.slice(0, 3).validate() == []


def test_blocks_are_folded_like_cells():
    trace = two_requests()
    recorder = Recorder(trace.header, max_bytes=1)
    for request in trace.request_records:
        recorder.add_request(request)
    for step in trace.step_records[:2]:
        recorder.add_step(encode(step))
    rest = recorder.slice(own=["a", "b"])
    assert rest.step_records == ()
    assert rest.header.kv_at_start is not None
    assert broken_rules(rest) == []


def test_an_engine_without_kv_has_none_at_the_start():
    recorder = Recorder(two_requests().header)
    steps: list[dict[str, Any]] = [{"step": i, "t_s": float(i)} for i in range(4)]
    for step in steps:
        recorder.add_step(encode(Step(**step)))
    assert recorder.slice(2).header.kv_at_start is None


@pytest.mark.parametrize("keeps_decoded", [False, True])
def test_who_follows_gets_each_step_once_decoded_before_or_not(keeps_decoded: bool):
    whole, _ = recorded()
    steps = whole.slice().step_records
    recorder, followed, number = Recorder(whole.header), [], 0
    for i, step in enumerate(steps):
        recorder.add_step(encode(step), step if keeps_decoded and i % 97 else None)
        if i % 50 == 0 or i == len(steps) - 1:  # more than stay decoded
            news = recorder.since(number)
            followed += news.steps
            number = news.next_step
    assert followed == list(steps)
    assert recorder.since(number).steps == []
    assert recorder.since(5, 9).steps == list(steps[5:9])


def test_who_follows_a_session_of_which_the_beginning_is_folded_starts_where_it_is_known():
    recorder, _ = recorded(max_bytes=40_000)
    opening, number = recorder.opening(0, own=["r39"])
    news = recorder.since(number, own=["r39"])
    assert number > 0 and opening.step_records == () and opening.header.kv_at_start is not None
    assert len(news.steps) == recorder.num_steps - number == len(recorder.slice().step_records)
    assert "r39" in [request.request_id for request in news.requests]
    arrivals = [request.arrival_s for request in news.requests]
    assert arrivals == sorted(arrivals)
