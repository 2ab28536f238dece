"""The story of a run while it grows: what is sent, to whom, and that it ends by itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from live_support import FakeScreen, load_fake, until

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.run import Run
from llmlab.trace import BlockDelta, Capabilities, Header, ScheduledRequest, Step, Trace
from llmlab.views.kv_now import kv_after
from llmlab.views.live import Live, live_of
from llmlab.views.story import Story

PROMPTS = ["one and two", "one and three", "one or the other", "none"]


@pytest.fixture
def engine() -> Iterator[EngineHandle]:
    yield load_fake(step_s=0.01)
    registry.unload(all=True)


def publishers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llmlab view"]


def finished(engine: EngineHandle, **options: Any) -> tuple[Run, Live, FakeScreen]:
    run, screen = engine.batch(PROMPTS, max_tokens=40, **options), FakeScreen()
    live = live_of(run)
    live.attach(screen)
    run.wait()
    until(lambda: screen.num_frozen)
    return run, live, screen


def test_the_steps_that_are_sent_are_those_of_the_trace_each_once_and_in_order(engine: EngineHandle):
    run, live, screen = finished(engine)
    sent: list[Any] = []
    for message in screen.messages:  # as a page takes them
        assert message["from"] <= len(sent)
        sent += message["steps"][len(sent) - message["from"] :]
    assert sent == json.loads(json.dumps(Story.of(run.trace).steps))
    assert [step["n"] for step in sent] == [step.step for step in run.trace.step_records]
    firsts = [message["from"] for message in screen.messages]
    assert firsts == [sum(len(m["steps"]) for m in screen.messages[:i]) for i in range(len(firsts))]
    assert live.story is not None and [r["prompt"] for r in live.story.requests] == [
        17,
        19,
        22,
        10,
    ]  # "<user>" and the prompt


def test_the_thread_ends_with_the_run_and_the_screen_is_frozen_once(engine: EngineHandle):
    _, live, screen = finished(engine)
    until(lambda: not publishers())
    live.finish()
    assert screen.num_frozen == 1
    assert screen.states[0] == "running" and screen.states[-1] == "ended"


def test_the_thread_ends_when_nobody_looks_any_more(engine: EngineHandle):
    run, screen = engine.batch(PROMPTS, max_tokens=2000), FakeScreen()
    live = live_of(run)
    live.attach(screen)
    until(lambda: screen.messages)
    live.detach(screen)
    until(lambda: not publishers())
    assert not run.done and screen.num_frozen == 0
    run.stop()


def test_two_views_of_a_run_share_one_thread_and_one_story(engine: EngineHandle):
    run, first, second = engine.batch(PROMPTS, max_tokens=60), FakeScreen(), FakeScreen()
    live_of(run).attach(first)
    live_of(run).attach(second)
    assert len(publishers()) == 1 and live_of(run) is live_of(run)
    run.wait()
    until(lambda: first.num_frozen and second.num_frozen)
    assert first.of("s")[-1] == second.of("s")[-1]


def test_at_most_20_messages_a_second_are_sent(engine: EngineHandle):
    engine.slow(0)
    _, _, screen = finished(engine)
    sent = screen.times_s
    assert len(sent) <= 3 + 20 * (sent[-1] - sent[0])


def test_while_the_engine_stands_a_view_that_comes_gets_the_last_key_message_and_nothing_is_made_anew(
    engine: EngineHandle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llmlab.views.key_frames.KEY_S", 0.1)
    run, screen = engine.batch(PROMPTS, max_tokens=2000), FakeScreen()
    live_of(run).attach(screen)
    until(lambda: any(m["from"] > 0 for m in screen.of("k")))
    engine.pause()
    until(lambda: "paused" in screen.states)
    until(lambda: len(screen.of("k")) >= 2 and screen.messages[-1] == screen.messages[-2])
    assert screen.messages[-1]["t"] == "k" and screen.messages[-1]["steps"]
    engine.resume()
    run.stop()


def test_nothing_is_sent_where_no_page_can_see_it_and_the_story_grows_all_the_same(engine: EngineHandle):
    run, screen = engine.batch(PROMPTS, max_tokens=40), FakeScreen()
    screen.is_seen = False
    live = live_of(run)
    live.attach(screen)
    run.wait()
    until(lambda: screen.num_frozen)
    assert screen.messages == [] and screen.states[-1] == "ended"
    assert live.story is not None and len(live.story.steps) == len(run.trace.step_records)


def test_a_view_that_comes_late_can_draw_from_a_key_message_alone(engine: EngineHandle):
    run, screen = engine.batch(PROMPTS, max_tokens=200), FakeScreen()
    live_of(run).attach(screen)
    until(lambda: len([m for m in screen.of("k") if m["from"] > 0]) >= 1)
    key = next(m for m in screen.of("k") if m["from"] > 0)
    run.stop()
    late = Story(Header(engine="fake", capabilities=Capabilities(kv="cells")))
    late.head, late.steps = key["head"], key["steps"]
    last = key["from"] + len(key["steps"]) - 1
    story = live_of(run).catch_up()
    assert story is not None and late.steps
    now, whole = kv_after(late, len(late.steps) - 1), kv_after(story, last)
    assert (now.position, now.holders, now.tokens) == (whole.position, whole.holders, whole.tokens)  # type: ignore[attr-defined]
    assert [request["id"] for _, request in key["requests"]] == [request["id"] for request in story.requests]


def test_the_texts_of_prompts_come_a_few_at_a_time_and_are_all_there_in_the_end(engine: EngineHandle):
    prompts = [letter * 230 for letter in "abcdefghijklmnopqrstuvwxyz"]  # 5,980 tokens; 5,000 are asked for in a second
    run, screen = engine.batch(prompts, max_tokens=3, raw=True), FakeScreen()
    live_of(run).attach(screen)
    run.wait()
    until(lambda: screen.num_frozen)
    story = live_of(run).story
    assert story is not None and [r["pieces"] for r in story.requests] == [list(prompt) for prompt in prompts]
    first = next(m for m in screen.messages if any(r["pieces"] for _, r in m["requests"]))
    assert sum(len(request["pieces"] or ()) for _, request in first["requests"]) <= 5000


def test_who_asks_gets_the_history(engine: EngineHandle):
    run, screen = engine.batch(PROMPTS, max_tokens=200), FakeScreen()
    live = live_of(run)
    live.attach(screen)
    until(lambda: live.story is not None and len(live.story.steps) > 5)
    live.need(screen, 0)
    until(lambda: any(m["from"] == 0 and len(m["steps"]) > 5 for m in screen.of("k")))
    live.need(screen, 3)
    until(lambda: any(m["from"] == 3 for m in screen.of("s")))
    run.stop()


def test_pause_step_and_slow_drive_the_engine_and_the_view_says_before_which_step_it_stands(engine: EngineHandle):
    run, screen = engine.batch(PROMPTS, max_tokens=2000), FakeScreen()
    live = live_of(run)
    live.attach(screen)
    live.drive({"paused": True})
    until(lambda: "paused" in screen.states)
    time.sleep(0.2)
    assert live.story is not None
    num_steps = len(live.story.steps)
    live.drive({"steps": 1})
    until(lambda: len(live.story.steps) == num_steps + 1)
    time.sleep(0.15)
    assert len(live.story.steps) == num_steps + 1
    until(lambda: screen.told[-1][1] == [[f"Paused before step {live.story.steps[-1]['n'] + 1}.", 0]])
    live.drive({"paused": False, "slow": 0.0})
    until(lambda: screen.states[-1] == "running")
    live.stop()
    assert run.done and run.results[0].finish_reason == "interrupted" and run.results[0].num_output_tokens > 0
    until(lambda: screen.num_frozen)


def test_a_view_made_in_the_middle_of_a_run_has_its_beginning_too(engine: EngineHandle):
    run = engine.batch(PROMPTS, max_tokens=100)
    until(lambda: len(run.trace.step_records) > 4)
    story = live_of(run).catch_up()
    assert story is not None and story.steps[0]["n"] == run.first_step
    run.stop()


def test_a_run_on_an_engine_that_worked_before_begins_with_the_kv_cache_as_it_was(engine: EngineHandle):
    engine.batch(PROMPTS, max_tokens=20).wait()
    run, _, _ = finished(engine)
    story = live_of(run).story
    assert story is not None
    of_trace = Story.of(run.trace)
    last = len(story.steps) - 1
    now, expected = kv_after(story, last), kv_after(of_trace, last)
    assert now.position == expected.position  # type: ignore[attr-defined]
    by_name = {tuple(sorted(story.requests[r]["id"] for r in h)) for h in now.holders.values()}  # type: ignore[attr-defined]
    assert by_name == {tuple(sorted(of_trace.requests[r]["id"] for r in h)) for h in expected.holders.values()}  # type: ignore[attr-defined]


def test_news_stay_small_for_100_000_blocks():
    """256 requests decode, 16 of them take a block in each step; 30 steps a second are offered."""
    ids = [f"r{i}" for i in range(256)]
    header = Header(
        engine="vllm", capabilities=Capabilities(kv="blocks"), block_size=16, num_blocks=100_000, token_budget=8192
    )

    def step(number: int) -> Step:
        rows = tuple(
            ScheduledRequest(
                request_id=r, phase="decode", num_tokens=1, num_computed_tokens=100 + number, num_prompt_tokens=64,
                num_output_tokens=36 + number,
            )
            for r in ids
        )  # fmt: skip
        allocated = {ids[(number * 16 + i) % 256]: (number * 16 + i + 1,) for i in range(16)}
        free = 100_000 - 16 * (number + 1)
        return Step(
            step=number, t_s=number / 30, scheduled=rows, num_scheduled_tokens=256, num_running=256,
            kv=BlockDelta(allocated=allocated, num_free=free, num_blocks=100_000,
                          free_head=tuple(range(50_000, 50_016))),
        )  # fmt: skip

    story = Story.of(Trace(header, (), tuple(map(step, range(60)))))
    # 20 messages a second take 1.5 steps each, so two at most
    assert max(len(json.dumps(story.steps[i : i + 2])) for i in range(10, 58)) <= 8000
