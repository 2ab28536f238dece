"""Which steps wait for the next ones before they leave the engine's process, and what never waits."""

from __future__ import annotations

import time

import pytest
from fake_engine import FakeEngine
from prompts import prompt

from llmlab.engines import messages as wire
from llmlab.engines.base import EngineConfig
from llmlab.engines.loop import EngineLoop
from llmlab.engines.outbox import Outbox
from llmlab.trace import Step

OUTBOX = "llmlab.engines.outbox.GATHER_S"


def messages_of(monkeypatch: pytest.MonkeyPatch, gather_s: float, **options: float) -> list[list[Step] | wire.Event]:
    """What a loop sends for an answer of 8 tokens and one of 12: each message as its steps, or as its event."""
    monkeypatch.setattr(OUTBOX, gather_s)
    engine = FakeEngine(EngineConfig("fake", "a-model", "", max_num_seqs=4, options=dict(options)))
    sent: list[list[Step] | wire.Event] = []
    ended: set[str] = set()

    def take(message: bytes) -> None:
        if message[:1] == wire.EVENT:
            sent.append(wire.decode_event(message[1:]))
            return
        steps = [wire.decode_step(encoded) for _, encoded in wire.split_steps(message[1:])]
        sent.append(steps)
        ended.update(name for step in steps for name in step.finished)
        if len(ended) == 2:
            loop.put(wire.Close())

    loop = EngineLoop(engine, take)
    loop.put(
        wire.AddRequests(tuple(prompt(name, sampling={"max_tokens": n}) for name, n in (("short", 8), ("long", 12))))
    )
    loop.run()
    return sent


@pytest.mark.usefixtures("patient")
def test_first_tokens_and_ends_leave_at_once_and_what_lies_between_leaves_together(monkeypatch):
    accepted, *rest = messages_of(monkeypatch, gather_s=60.0)
    assert isinstance(accepted, wire.Accepted)
    assert [len(steps) for steps in rest if isinstance(steps, list)] == [1, 7, 4]
    assert [step.step for steps in rest if isinstance(steps, list) for step in steps] == list(range(12))


@pytest.mark.usefixtures("patient")
def test_a_slow_engine_holds_nothing_back(monkeypatch):
    sent = messages_of(monkeypatch, gather_s=0.001, step_s=0.005)
    assert all(len(steps) == 1 for steps in sent if isinstance(steps, list))


def test_an_event_never_overtakes_a_step():
    sent: list[bytes] = []
    outbox = Outbox(sent.append)
    outbox.step(Step(step=0, t_s=0.0), may_wait=False)
    outbox.step(Step(step=1, t_s=0.1), may_wait=True)
    outbox.event(wire.Reply(1))
    assert [message[:1] for message in sent] == [wire.STEPS, wire.STEPS, wire.EVENT]


def test_a_step_says_how_long_it_was_held():
    sent: list[bytes] = []
    outbox = Outbox(sent.append)
    outbox.step(Step(step=0, t_s=0.0), may_wait=False)
    outbox.step(Step(step=1, t_s=0.1), may_wait=True)
    time.sleep(0.02)
    outbox.step(Step(step=2, t_s=0.2), may_wait=False)
    [[first_s, _], [second_s, _]] = wire.split_steps(sent[1][1:])
    assert first_s >= 0.02 > second_s >= 0.0
