"""The loop between commands and steps, on the fake engine, without a process or a socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from fake_engine import FakeEngine
from prompts import prompt

from llmlab.engines import messages as wire
from llmlab.engines.base import EngineConfig
from llmlab.engines.loop import EngineLoop
from llmlab.errors import EngineError
from llmlab.scheduling.contracts import SchedulerState
from llmlab.trace import Step


class Bench:
    """A loop in a thread, what it sends, and waiting for it."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.sent: list[tuple[float, Step | wire.Event]] = []
        self.loop = EngineLoop(engine, self._take)
        self.put = self.loop.put

    def _take(self, message: bytes) -> None:
        now_s = time.monotonic()
        if message[:1] == wire.STEPS:
            self.sent += [(now_s - held_s, wire.decode_step(step)) for held_s, step in wire.split_steps(message[1:])]
        else:
            self.sent.append((now_s, wire.decode_event(message[1:])))

    def of(self, kind: type) -> list[Any]:
        return [message for _, message in list(self.sent) if isinstance(message, kind)]

    @property
    def finished(self) -> dict[str, str]:
        return {r: reason for step in self.of(Step) for r, reason in step.finished.items()}

    def add(self, *prompts: wire.Prompt) -> None:
        self.put(wire.AddRequests(prompts))

    def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not reached; sent: {[m for _, m in self.sent[-5:]]}"
            time.sleep(0.002)


@contextmanager
def running(policy: Any = None, seqs: int = 16, **options: Any) -> Iterator[Bench]:
    engine = FakeEngine(EngineConfig("fake", "a-model", "", max_num_seqs=seqs, options=options), policy=policy)
    bench = Bench(engine)
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    try:
        yield bench
    finally:
        bench.put(wire.Close())
        thread.join(5)
        assert not thread.is_alive()


def chat(*turns: tuple[str, str]) -> tuple[Mapping[str, str], ...]:
    return tuple({"role": role, "content": content} for role, content in turns)


@pytest.mark.usefixtures("patient")
def test_one_step_carries_the_tokens_of_all_requests():
    with running() as bench:
        bench.add(*(prompt(name) for name in "abc"))
        bench.until(lambda: len(bench.finished) == 3)
    assert [len(step.tokens) for step in bench.of(Step)] == [3, 3, 3, 3]
    assert bench.finished == {"a": "length", "b": "length", "c": "length"}


def test_requests_are_accepted_before_the_first_step_that_has_them():
    with running() as bench:
        bench.add(prompt("a"), prompt("b"))
        bench.until(lambda: len(bench.finished) == 2)
    kinds = [type(message).__name__ for _, message in bench.sent]
    assert kinds[:2] == ["Accepted", "Step"]
    assert [r.request_id for r in bench.of(wire.Accepted)[0].requests] == ["a", "b"]


def test_a_request_that_cannot_be_served_is_refused_and_the_others_go_on():
    with running() as bench:
        bench.add(prompt("long", "x" * 300), prompt("good"), prompt("bad", sampling={"top_p": 7}))
        bench.until(lambda: bench.finished and len(bench.of(wire.Refused)) == 2)
    refused = {event.request_id: event.text for event in bench.of(wire.Refused)}
    assert refused["long"] == "Prompt is 300 tokens, max_model_len is 256."
    assert refused["bad"].startswith("top_p is 7; it must be")
    assert bench.finished == {"good": "length"}


@pytest.mark.parametrize(
    "empty", [{"text": ""}, {"token_ids": ()}, {"messages": ()}, {"messages": chat(("user", ""))}], ids=str
)
def test_an_empty_prompt_is_refused_with_what_to_do(empty: dict[str, Any]):
    with running() as bench:
        bench.add(prompt("a", **empty))
        bench.until(lambda: bench.of(wire.Refused))
    assert bench.of(wire.Refused)[0].text == "The prompt is empty. Give it at least one word."


def test_a_bug_of_the_engine_while_adding_refuses_one_request_only():
    with running() as bench:
        bench.engine.tokenize = lambda text: 1 / 0 if text == "bug" else [5]  # type: ignore[assignment, method-assign]
        bench.add(prompt("a", "bug"), prompt("b"))
        bench.until(lambda: bench.finished)
    assert bench.of(wire.Refused)[0].text == "ZeroDivisionError: division by zero"
    assert bench.finished == {"b": "length"}


def test_a_conversation_is_rendered_by_the_chat_template_and_kept_in_the_request():
    with running() as bench:
        bench.add(prompt("a", messages=chat(("system", "Be short."), ("user", "Hi"))))
        bench.until(lambda: bench.finished)
    request = bench.of(wire.Accepted)[0].requests[0]
    assert request.prompt_text == "<system>Be short.<user>Hi"
    assert bytes(request.prompt_token_ids).decode() == request.prompt_text


def test_without_a_chat_template_one_message_is_sent_as_it_is_and_roles_are_refused():
    with running() as bench:
        bench.engine.chat_template = None
        bench.add(prompt("a", messages=chat(("user", "Hi"))))
        bench.add(prompt("b", messages=chat(("system", "Be short."), ("user", "Hi"))))
        bench.until(lambda: bench.finished and bench.of(wire.Refused))
    assert bench.of(wire.Accepted)[0].requests[0].prompt_text == "Hi"
    assert bench.of(wire.Refused)[0].text.startswith("This model has no chat template, so it knows no roles.")


@pytest.mark.usefixtures("patient")
def test_a_bos_token_that_template_and_tokenizer_both_write_is_sent_once():
    with running() as bench:
        bench.engine.bos_token, bench.engine.chat_template = "^", "^{{ messages[0].content }}"
        plain = bench.engine.tokenize
        bench.engine.tokenize = lambda text: [ord("^"), *plain(text)]  # type: ignore[method-assign]
        bench.add(prompt("a", messages=chat(("user", "Hi"))), prompt("b", "Hi"))
        bench.until(lambda: len(bench.finished) == 2)
    both = [bytes(r.prompt_token_ids).decode() for r in bench.of(wire.Accepted)[0].requests]
    assert both == ["^Hi", "^Hi"]


def test_a_prompt_sent_for_later_arrives_at_its_time():
    with running() as bench:
        later = prompt("later", in_s=0.15)
        bench.add(later, prompt("now"))
        bench.until(lambda: len(bench.finished) == 2)
    first, second = (accepted.requests[0] for accepted in bench.of(wire.Accepted))
    assert [first.request_id, second.request_id] == ["now", "later"]
    assert second.arrival_s == pytest.approx(later.sent_s - bench.engine.epoch_s)
    came_s = next(at for at, m in bench.sent if isinstance(m, wire.Accepted) and m.requests[0].request_id == "later")
    assert came_s >= later.sent_s


def test_what_is_stopped_before_it_arrives_never_reaches_the_engine():
    with running() as bench:
        bench.add(prompt("later", in_s=60.0))
        bench.put(wire.AbortRequests(("later",)))
        bench.until(lambda: bench.of(wire.Refused))
        bench.put(wire.Call(1, "memory"))
        bench.until(lambda: bench.of(wire.Reply))
    assert bench.of(wire.Refused) == [wire.Refused("later", "Stopped before it reached the engine.")]
    assert not bench.of(wire.Accepted)


def test_thousands_of_prompts_at_once_do_not_hold_up_a_stream():
    with running(step_s=0.005, tokenize_s=0.001, seqs=4) as bench:
        bench.add(prompt("stream", sampling={"max_tokens": 60}))
        bench.until(lambda: bench.of(Step))
        bench.add(*(prompt(f"p{i}") for i in range(1500)))
        bench.until(lambda: "stream" in bench.finished)
        num_accepted = sum(len(accepted.requests) for accepted in bench.of(wire.Accepted))
    at_s = [at for at, m in bench.sent if isinstance(m, Step) and any(t.request_id == "stream" for t in m.tokens)]
    # All prompts in one go would be a gap of 1.5 s at least.
    assert max(after - before for before, after in pairwise(at_s)) < 0.5
    assert num_accepted > 60


def test_a_paused_engine_takes_requests_and_questions_but_no_step():
    with running() as bench:
        bench.put(wire.Drive(paused=True))
        bench.add(prompt("a"))
        bench.put(wire.Call(7, "tokenize", {"text": "hi"}))
        bench.until(lambda: bench.of(wire.Reply) and bench.of(wire.Accepted))
        assert bench.of(wire.Reply) == [wire.Reply(7, [104, 105])]
        time.sleep(0.05)
        assert not bench.of(Step)
        bench.put(wire.Drive(steps=2))
        bench.until(lambda: len(bench.of(Step)) == 2)
        time.sleep(0.05)
        assert len(bench.of(Step)) == 2
        bench.put(wire.Drive(paused=False))
        bench.until(lambda: bench.finished)


def test_a_paused_engine_reports_the_end_of_what_was_stopped():
    with running() as bench:
        bench.put(wire.Drive(paused=True))
        bench.add(prompt("a"), prompt("b"))
        bench.until(lambda: bench.of(wire.Accepted))
        bench.put(wire.AbortRequests(("a", "b")))
        bench.until(lambda: bench.finished == {"a": "abort", "b": "abort"})
    assert not [token for step in bench.of(Step) for token in step.tokens]


def test_single_steps_that_found_nothing_to_do_are_not_saved_up():
    with running() as bench:
        bench.put(wire.Drive(paused=True, steps=5))
        bench.put(wire.Call(1, "memory"))
        bench.until(lambda: bench.of(wire.Reply))
        bench.add(prompt("a"))
        bench.until(lambda: bench.of(wire.Accepted))
        time.sleep(0.05)
        assert not bench.of(Step)


def test_slow_motion_waits_between_steps():
    with running() as bench:
        bench.put(wire.Drive(slow_s=0.05))
        bench.add(prompt("a"))
        bench.until(lambda: bench.finished)
    at_s = [at for at, m in bench.sent if isinstance(m, Step)]
    assert min(after - before for before, after in pairwise(at_s)) >= 0.049


def test_a_step_that_raises_fails_its_requests_and_the_engine_goes_on():
    with running(fail_at=2) as bench:
        bench.add(prompt("a"), prompt("b"))
        bench.until(lambda: bench.of(wire.Failed) and len(bench.finished) == 2)
        bench.add(prompt("c"))
        bench.until(lambda: "c" in bench.finished)
        bench.put(wire.Call(1, "memory"))
        bench.until(lambda: bench.of(wire.Reply))
    failed = wire.Failed(("a", "b"), "RuntimeError: the fake engine was told to fail", "RuntimeError")
    assert bench.of(wire.Failed) == [failed]
    assert bench.finished == {"a": "abort", "b": "abort", "c": "length"}
    assert bench.of(wire.Reply)[0].value["kv_used"] == 0


class Greedy:
    """A policy that gives everybody more than there is."""

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        return {request.request_id: 1000 for request in (*state.running, *state.waiting)}

    def victim(self, state: SchedulerState) -> str:
        return ""


def test_the_sentence_with_which_a_plan_is_refused_reaches_the_notebook_as_it_is():
    with running(policy=Greedy()) as bench:
        bench.add(prompt("a"))
        bench.until(lambda: bench.of(wire.Failed))
    (failed,) = bench.of(wire.Failed)
    assert failed.error == "PlanRefused"
    assert failed.text == "step 0: a was given 1000 tokens, it has 5 uncomputed: give 1..5"


def test_an_engine_that_cannot_be_cleaned_up_ends_the_loop():
    engine = FakeEngine(EngineConfig("fake", "a-model", ""))
    bench = Bench(engine)
    engine.step = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    bench.add(prompt("a"))
    with pytest.raises(EngineError, match="The engine cannot go on after: ZeroDivisionError: division by zero"):
        bench.loop.run()
    assert bench.of(wire.Failed)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (wire.Call(1, "tokenise"), "Unknown call 'tokenise'. Known: "),
        (wire.Call(1, "close"), "Unknown call 'close'. Known: "),
        (wire.Call(1, "logits", {"token_ids": [1]}), "The fake engine has no logits()."),
    ],
)
def test_a_question_that_no_engine_answers_gets_a_sentence(call: wire.Call, text: str):
    with running() as bench:
        bench.put(call)
        bench.until(lambda: bench.of(wire.Reply))
    (reply,) = bench.of(wire.Reply)
    assert reply.error == "EngineError"
    assert reply.text.startswith(text)


@pytest.mark.parametrize("last", [wire.Close(), wire.AbortRequests(("a", "b"))], ids=["close", "abort all"])
def test_closing_and_stopping_everybody_break_off_the_step_that_runs(last: wire.Command):
    with running(step_s=30.0) as bench:
        bench.add(prompt("a"), prompt("b"))
        bench.until(lambda: bench.of(wire.Accepted))
        time.sleep(0.05)
        started = time.monotonic()
        bench.put(last)
        bench.put(wire.Close())
        bench.until(lambda: bench.of(Step))
        assert time.monotonic() - started < 5


def test_stopping_one_of_two_does_not_break_off_the_step_of_the_other():
    with running(step_s=0.2) as bench:
        bench.add(prompt("a"), prompt("b"))
        bench.until(lambda: bench.of(wire.Accepted))
        time.sleep(0.05)
        bench.put(wire.AbortRequests(("a",)))
        bench.until(lambda: "a" in bench.finished)
        first = bench.of(Step)[0]
        assert {token.request_id for token in first.tokens} == {"a", "b"}
