"""Lab 4: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import (
    assert_mistake_is_told,
    mistake_of,
    mistakes_of,
    raw_points,
    reasons_of,
    source_of,
    with_mistake,
)

from llmlab.labs.finding import find_lab
from llmlab.labs.judging import Judge
from llmlab.labs.pictures import png_of, text_of
from llmlab.labs.pictures_timeline import differing

LAB = find_lab("lab04")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 100
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert set(reasons.values()) == {f"Q{i} is not written yet." for i in (2, 3, 4, 5, 6, 7)}


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS[:1])


@pytest.mark.soak
@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_it_loses_the_same_with_other_seeds(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS[1:])


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 16


def test_what_is_wrong_in_the_chunks_costs_nothing_where_victims_and_fairness_are_asked():
    path = mistake_of(LAB, "budget_overrun")
    failed = {name for name, reason in reasons_of(LAB, with_mistake(LAB, path)).items() if reason}
    assert {name.split()[0] for name in failed} == {"Q4"}


def test_policies_in_other_words_are_as_good():
    """Grants made in another way, a helper that FairPolicy uses, a victim with the least to lose."""
    others = """
class ChunkedPrefill:
    def pieces(self, requests, left):
        plan = {}
        for request in requests:
            if num_tokens := min(left, request.num_tokens - request.num_computed_tokens):
                plan[request.request_id] = num_tokens
                left -= num_tokens
        return plan

    def schedule(self, state):
        decodes = [r for r in state.running if r.phase == "decode"]
        prompts = [r for r in state.running if r.phase != "decode"]
        plan = self.pieces(decodes, state.token_budget)
        room = state.max_num_seqs - len(state.running)
        return plan | self.pieces([*prompts, *state.waiting[:room]], state.token_budget - sum(plan.values()))

    def victim(self, state):
        return min(state.running[1:], key=lambda request: request.num_computed_tokens).request_id


class FairPolicy(ChunkedPrefill):
    def __init__(self):
        self.served, self.last_users = {}, ()

    def schedule(self, state):
        users = [r.user for r in (*state.running, *state.waiting)]
        for user in users:
            if user not in self.last_users:
                others = [self.served[u] for u in users if u in self.last_users]
                self.served[user] = max(self.served.get(user, 0), min(others, default=0))
        self.last_users = tuple(users)
        plan = super().schedule(replace(state, waiting=()))
        user_of = {r.request_id: r.user for r in (*state.running, *state.waiting)}
        for name, num_tokens in plan.items():
            self.served[user_of[name]] += num_tokens
        waiting = list(state.waiting)
        while waiting and len(plan.keys() | {r.request_id for r in state.running}) < state.max_num_seqs:
            best = sorted(waiting, key=lambda r: (self.served[r.user], state.waiting.index(r)))[0]
            share = self.pieces([best], state.token_budget - sum(plan.values()))
            if not share:
                break
            plan |= share
            self.served[best.user] += share[best.request_id]
            waiting.remove(best)
        return plan
"""
    source = f"{source_of(LAB, 'reference.py')}\n\n{others}"
    assert {reason for reason in reasons_of(LAB, source).values() if reason} == set()


@pytest.mark.slow
def test_in_processes_a_failed_check_comes_with_both_timelines():
    path = mistake_of(LAB, "prefill_first")
    results = Judge(LAB).source(with_mistake(LAB, path), [LAB.question("Q4")])
    (failed,) = results.of("Q4")
    assert failed.picture is not None and differing(failed.picture) == ["r5", "r12", "r16"]
    assert text_of(failed.picture).splitlines() == [
        "in step 2:",
        "  yours     from step 0, tokens of 32: 32 32 32",
        "       r5 Pd  !–",
        "      r12 PP  !–",
        "      r16 .PP !32",
        "  expected  from step 0, tokens of 32: 32 32 32",
        "       r5 Pdd !1",
        "      r12 PPd !1",
        "      r16 .PP !30",
        "  P prefill, d decode, R recompute, . waiting, x preempted",
        "  step 2: ['r5', 'r12'] were decoding and got no token: decodes come first, prefill takes what is left of the "
        "budget",
    ]
    assert png_of(failed.picture).startswith(b"\x89PNG")
