"""Trace.validate(): sound traces are clean, and each planted fault is named with the request and both numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

import hand_written as by_hand
import pytest
from hand_written import (
    died_in_the_middle,
    drafts_accepted_and_rejected,
    preemption_in_blocks,
    prefix_sharing_in_cells,
    with_header,
    with_request,
    with_share,
    with_step,
    without_request,
)

from llmlab.trace import Header, Incident, Request, Token, Trace, Violation
from llmlab.trace.example import two_requests
from llmlab.trace.rules import RULES, Rule

SOUND = [
    two_requests,
    prefix_sharing_in_cells,
    preemption_in_blocks,
    drafts_accepted_and_rejected,
    died_in_the_middle,
    lambda: Trace(Header(engine="simulated")),
]


@pytest.mark.parametrize("trace", SOUND)
def test_a_sound_trace_has_no_violations(trace: Callable[[], Trace]):
    assert trace().validate() == []


@pytest.mark.parametrize("trace", [two_requests, prefix_sharing_in_cells, preemption_in_blocks])
def test_a_trace_without_kv_deltas_is_judged_by_the_rest(trace: Callable[[], Trace]):
    bare = trace()
    for number in range(len(bare.step_records)):
        bare = with_step(bare, number, kv=None)
    assert bare.validate() == []
    wrong = with_share(bare, 0, bare.request_records[0].request_id, num_computed_tokens=1)
    assert wrong.validate() != []


def without_kv(trace: Trace) -> Trace:
    """Many faults in what was scheduled would show in the KV too; here only the first sentence is wanted."""
    for number in range(len(trace.step_records)):
        trace = with_step(trace, number, kv=None)
    return trace


def preempted() -> Trace:
    return without_kv(preemption_in_blocks())


def shared() -> Trace:
    return without_kv(two_requests())


def drafts() -> Trace:
    return drafts_accepted_and_rejected()


# (what is broken, the step, the rule, the sentence)
FAULTS: list[tuple[Trace, int | None, Rule, str]] = [
    # order
    (with_step(shared(), 1, step=0), 0, "order", "step 0 follows step 0"),
    (with_step(shared(), 2, t_s=1.5), 2, "order", "it ends at 1.5 s, the step before at 2.0 s"),
    # request
    (
        Trace(shared().header, (*shared().request_records, shared().request_records[0]), shared().step_records),
        None,
        "request",
        "a has two request records",
    ),
    (without_request(shared(), "b"), 1, "request", "b has a prefix hit, but has no request record"),
    (without_request(preempted(), "p"), 0, "request", "p is scheduled, but has no request record"),
    (with_step(shared(), 0, finished={"z": "abort"}), 0, "request", "z ends, but has no request record"),
    (with_step(shared(), 0, preempted=("z",)), 0, "request", "z is preempted, but has no request record"),
    # end
    (with_step(shared(), 2, finished={"a": "length"}), None, "end", "b never ends"),
    (
        Trace(
            shared().header,
            (*shared().request_records, by_hand.Request(request_id="c", arrival_s=9.0, prompt_token_ids=(1,))),
            shared().step_records,
        ),
        None,
        "end",
        "c never ends",
    ),
    (with_step(shared(), 1, finished={"a": "stop"}), 2, "end", "a is scheduled, it ended in step 1"),
    (with_step(preempted(), 3, finished={"p": "stop"}), 3, "end", "p ends in step 3, it ended in step 2 already"),
    (
        Trace(
            shared().header,
            shared().request_records,
            shared().step_records,
            (Incident(incident="died", t_s=9.0, requests=("a",)),),
        ),
        None,
        "end",
        'a ends by the incident "died", it ended in step 2 already',
    ),
    # budget
    (with_step(shared(), 0, num_scheduled_tokens=6), 0, "budget", "num_scheduled_tokens is 6, the shares sum to 5"),
    (with_step(shared(), 0, token_budget=4), 0, "budget", "5 tokens are scheduled, the budget is 4"),
    (with_header(shared(), token_budget=4), 0, "budget", "5 tokens are scheduled, the budget is 4"),
    (
        with_step(
            shared(), 0, scheduled=shared().step_records[0].scheduled * 2, num_scheduled_tokens=10, token_budget=10
        ),
        0,
        "budget",
        "a is scheduled 2 times",
    ),
    # seats
    (with_step(shared(), 1, num_running=3), 1, "seats", "3 sequences run, max_num_seqs is 2"),
    (with_header(shared(), max_num_seqs=1), 1, "seats", "2 sequences run, max_num_seqs is 1"),
    # phase
    (
        with_share(shared(), 1, "a", phase="prefill"),
        1,
        "phase",
        "a is in prefill with 1 token left to compute after an output, expected decode",
    ),
    (with_share(shared(), 1, "b", phase="decode"), 1, "phase", "b decodes before its first output token"),
    (with_share(shared(), 0, "a", phase="recompute"), 0, "phase", "a is in recompute, but was never preempted"),
    (
        with_share(preempted(), 3, "q", phase="prefill"),
        3,
        "phase",
        "q is in prefill after a preemption, expected recompute",
    ),
    (
        with_share(preempted(), 3, "q", phase="decode"),
        3,
        "phase",
        "q decodes with 5 tokens left to compute, expected 1",
    ),
    (with_share(drafts(), 3, "a", num_draft_tokens=1), 3, "phase", "a decodes 1 token, expected 2"),
    # computed
    (
        with_share(shared(), 0, "a", num_computed_tokens=1),
        0,
        "computed",
        "a is admitted with 1 computed tokens, its prefix hit is 0",
    ),
    (
        with_step(shared(), 1, prefix_hits={}),
        1,
        "computed",
        "b is admitted with 4 computed tokens, its prefix hit is 0",
    ),
    (
        with_step(shared(), 1, prefix_hits={"b": 3}),
        1,
        "computed",
        "b is admitted with 4 computed tokens, its prefix hit is 3",
    ),
    (
        with_share(preempted(), 3, "q", num_computed_tokens=4, num_tokens=1, phase="recompute"),
        3,
        "computed",
        "q is admitted with 4 computed tokens, its prefix hit is 0",
    ),
    (
        with_share(shared(), 1, "a", num_computed_tokens=4, num_tokens=2),
        1,
        "computed",
        "a has 4 computed tokens, expected 5",
    ),
    (with_share(shared(), 0, "a", num_tokens=6), 0, "computed", "a is scheduled for 6 tokens, 5 are left to compute"),
    (
        with_share(shared(), 0, "a", num_prompt_tokens=6, num_tokens=6),
        0,
        "computed",
        "a is said to have 6 prompt tokens, its request has 5",
    ),
    (
        with_share(shared(), 2, "b", num_output_tokens=2, num_tokens=2, phase="recompute"),
        2,
        "computed",
        "b is said to have 2 output tokens, 1 came out",
    ),
    (with_header(shared(), max_model_len=6), 2, "computed", "a reaches 7 tokens, max_model_len is 6"),
    # tokens
    (with_share(shared(), 0, "a", num_tokens=4), 0, "tokens", "1 token of a came out with 4 of its 5 tokens computed"),
    (with_step(shared(), 0, tokens=()), 0, "tokens", "no token of a came out, though all its 5 are computed"),
    (
        with_step(shared(), 0, tokens=(Token(request_id="a", token_id=6), Token(request_id="b", token_id=6))),
        0,
        "tokens",
        "1 token of b came out, which was not scheduled",
    ),
    (
        with_step(shared(), 0, tokens=(Token(request_id="a", token_id=6),) * 2),
        0,
        "tokens",
        "2 tokens of a came out of one step, expected at most 1",
    ),
    (
        with_step(drafts(), 1, tokens=(Token(request_id="a", token_id=6),) * 4),
        1,
        "tokens",
        "4 tokens of a came out of one step, expected at most 3",
    ),
    # preempted
    (with_step(preempted(), 0, preempted=("q",)), 0, "preempted", "q is preempted, but it did not run"),
    (with_step(preempted(), 2, preempted=("q",)), 2, "preempted", "q is preempted, but it did not run"),
    (with_step(preempted(), 3, preempted=("p",)), 3, "preempted", "p is preempted, it ended in step 2"),
    # prefix
    (with_step(shared(), 2, prefix_hits={"a": 4}), 2, "prefix", "a has a prefix hit of 4 tokens while it runs"),
]


@pytest.mark.parametrize(
    ("trace", "step", "rule", "text"), FAULTS, ids=lambda value: value if isinstance(value, str) else None
)
def test_a_planted_fault_is_named(trace: Trace, step: int | None, rule: Rule, text: str):
    assert trace.validate()[0] == Violation(step, rule, text)


def test_a_fault_is_told_once_and_does_not_drag_others_behind():
    several = [(with_step(shared(), 2, t_s=1.5), 1), (with_header(shared(), token_budget=4), 1), (drafts(), 0)]
    several += [(with_step(shared(), 1, prefix_hits={"b": 3}), 1), (with_step(shared(), 0, num_scheduled_tokens=6), 1)]
    several += [(with_share(shared(), 1, "b", phase="decode"), 1), (with_step(preempted(), 2, preempted=("q",)), 1)]
    assert [len(trace.validate()) for trace, _ in several] == [number for _, number in several]


def test_every_rule_has_a_sentence_and_reads_as_one():
    assert set(RULES) == set(get_args(Rule))
    assert str(Violation(None, "end", "b never ends")) == "trace: b never ends (end)"
    assert str(Violation(3, "end", "p ends")) == "step 3: p ends (end)"


def test_an_unknown_number_of_prompt_tokens_is_taken_from_the_steps():
    trace = with_request(shared(), "a", prompt_token_ids=())
    assert trace.validate() == []


def test_a_trace_cut_out_of_a_longer_one_may_begin_with_requests_under_way():
    trace = two_requests()
    state = by_hand.state_after(trace, 1)
    rest = by_hand.from_step(trace, 1, state)
    assert rest.validate() == []
    rest = by_hand.from_step(trace, 2, by_hand.state_after(trace, 2))
    assert rest.validate() == []


def test_in_a_trace_cut_out_of_a_longer_one_a_new_request_still_starts_at_its_prefix_hit():
    trace = two_requests()
    rest = with_step(by_hand.from_step(trace, 1, by_hand.state_after(trace, 1)), 0, prefix_hits={})
    assert str(rest.validate()[0]) == "step 1: b is admitted with 4 computed tokens, its prefix hit is 0 (computed)"


def test_who_ended_before_the_cut_but_still_holds_cells_does_not_have_to_end_again():
    trace = prefix_sharing_in_cells()
    assert by_hand.from_step(trace, 3, by_hand.state_after(trace, 3)).validate() == []


def test_a_request_preempted_before_the_cut_recomputes_after_it():
    trace = preemption_in_blocks()
    assert by_hand.from_step(trace, 2, by_hand.state_after(trace, 2)).validate() == []
    rest = by_hand.from_step(trace, 3, by_hand.state_after(trace, 3))
    assert without_request(rest, "p").validate() == []


def test_100_000_steps_are_checked_in_seconds():
    num_steps = 100_000
    prompt = tuple(range(10))
    request = Request(request_id="a", arrival_s=0.0, prompt_token_ids=prompt)
    steps = [by_hand.step(0, [by_hand.share("a", "prefill", 10, 0, 10, 0)], None, {"a": 1})]
    for i in range(1, num_steps):
        end = {"finished": {"a": "length"}} if i == num_steps - 1 else {}
        steps.append(by_hand.step(i, [by_hand.share("a", "decode", 1, 9 + i, 10, i)], None, {"a": 1}, **end))
    trace = Trace(Header(engine="simulated"), (request,), tuple(steps))
    start_s = time.perf_counter()
    assert trace.validate() == []
    assert time.perf_counter() - start_s < 10
