"""Who is sent the story of a run: views that a page shows, and those whose page comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from live_support import FakeScreen, load_fake, until

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.run import Run
from llmlab.views.live import Live, live_of
from llmlab.views.story import Story

PROMPTS = ["one and two", "one and three"]


class Page(FakeScreen):
    """Takes what it is sent as static/telling.js does: it asks once for what it lacks."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live, self.steps, self.asked = live, [], -1

    def send(self, message: bytes) -> None:
        super().send(message)
        told = self.messages[-1]
        if told.get("anew"):
            self.steps = []
        if told["from"] <= len(self.steps):
            self.steps += told["steps"][len(self.steps) - told["from"] :]
        elif self.asked < len(self.steps):
            self.asked = len(self.steps)
            self.live.need(self, self.asked)


@pytest.fixture
def engine() -> Iterator[EngineHandle]:
    yield load_fake(step_s=0.01, num_cells=8192)
    registry.unload(all=True)


def watched(engine: EngineHandle, num_pages: int) -> tuple[Run, Live, list[Page]]:
    run = engine.batch(PROMPTS, max_tokens=3000)
    live = live_of(run)
    pages = [Page(live) for _ in range(num_pages)]
    for page in pages:
        live.attach(page)
    until(lambda: all(page.messages for page in pages))
    return run, live, pages


def wait_steps(live: Live, number: int) -> None:
    """Until so many more have come."""
    assert live.story is not None
    end = len(live.story.steps) + number
    until(lambda: live.story is not None and len(live.story.steps) >= end)


def leave(page: Page, live: Live) -> int:
    """It is seen no more; how many messages it got."""
    page.is_seen = False
    wait_steps(live, 10)
    return len(page.messages)


def as_told(run: Run) -> Any:
    return json.loads(json.dumps(Story.of(run.trace).steps))


def test_a_page_that_is_gone_gets_nothing_and_one_that_comes_back_gets_all_it_missed_once(engine: EngineHandle):
    run, live, (page,) = watched(engine, 1)
    num_sent = leave(page, live)
    wait_steps(live, 120)  # more than a second: a key message would be due
    assert len(page.messages) == num_sent
    have, missed_to = len(page.steps), len(live.story.steps)  # type: ignore[union-attr]
    page.is_seen = True
    until(lambda: len(page.steps) > missed_to)
    assert [message["from"] for message in page.messages[num_sent:] if message["from"] < missed_to] == [have]
    run.stop()
    until(lambda: page.num_frozen)
    assert page.steps == as_told(run) and page.asked == -1


def test_of_two_views_the_one_that_is_seen_is_sent_to_and_the_other_asks_when_it_comes_back(engine: EngineHandle):
    run, live, (here, gone) = watched(engine, 2)
    num_sent, num_here = leave(gone, live), len(here.messages)
    wait_steps(live, 30)
    assert len(gone.messages) == num_sent and len(here.messages) > num_here
    have = len(gone.steps)
    gone.is_seen = True
    until(lambda: len(gone.steps) > have + 30)
    assert gone.asked == have and here.asked == -1
    run.stop()
    until(lambda: here.num_frozen and gone.num_frozen)
    assert here.steps == gone.steps == as_told(run)


def test_a_page_that_was_gone_when_the_story_began_anew_gets_the_new_one(
    engine: EngineHandle, monkeypatch: pytest.MonkeyPatch
):
    run, live, (here, gone) = watched(engine, 2)
    leave(gone, live)
    monkeypatch.setattr(Run, "part", property(lambda self: 1))  # as after a gap in a server's trace
    until(lambda: any(message.get("anew") for message in here.messages))
    wait_steps(live, 10)
    assert not any(message.get("anew") for message in gone.messages)
    gone.is_seen = True
    until(lambda: any(message.get("anew") for message in gone.messages))
    run.stop()
    until(lambda: here.num_frozen and gone.num_frozen)
    assert here.steps == gone.steps == as_told(run)
    assert [sum(bool(message.get("anew")) for message in page.messages) for page in (here, gone)] == [1, 1]


def test_beside_an_engine_on_every_core_looks_are_rare_until_somebody_holds_it(
    engine: EngineHandle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llmlab.views.live.fills_cpus", lambda header: True)
    monkeypatch.setattr("llmlab.views.pace.period_s", lambda mean_s, is_beside: 60.0 if is_beside else 0.05)
    run, live, [page] = watched(engine, 1)
    live.drive({"paused": True})
    until(lambda: page.states[-1] == "paused")
    num_steps = len(page.steps)
    live.drive({"steps": 1})  # the engine stands: the view looks as often as ever
    until(lambda: len(page.steps) > num_steps)
    live.drive({"paused": False})
    until(lambda: page.states[-1] == "running")
    num_messages = len(page.messages)
    wait_steps_of(run, 20)
    assert len(page.messages) <= num_messages + 1  # a look that was under way when it was let go
    live.stop()
    until(lambda: page.num_frozen)
    assert page.steps[-1]["n"] == run.trace.step_records[-1].step


def wait_steps_of(run: Run, number: int) -> None:
    end = len(run.trace.step_records) + number
    until(lambda: len(run.trace.step_records) >= end)
