"""Serving without a real model: a wrong block shows in the answer, an interrupt leaves nothing, steps can be played."""

from __future__ import annotations

import pytest

import llmlab
from llmlab.errors import PlanRefused
from llmlab.labs.serving import CellCount, Job, Serving
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.policies import ChunkedPrefill

PROMPT = tuple(range(10, 23))
JOBS = [Job("a", PROMPT, 4), Job("b", (*PROMPT[:9], 99), 4, arrival_step=3)]


def served(pool: PagedPool | CellCount, policy: ChunkedPrefill | None = None) -> Serving:
    serving = Serving(JOBS, pool, policy or ChunkedPrefill(), token_budget=8, max_num_seqs=2)
    serving.run(max_steps=50)
    return serving


def test_a_cache_changes_no_answer_and_the_trace_is_sound():
    cached, plain = served(PagedPool(12, 4)), served(PagedPool(12, 4, prefix_caching=False))
    assert cached.answers == plain.answers and all(len(answer) == 4 for answer in plain.answers.values())
    assert cached.trace.validate() == []
    assert [step.prefix_hits for step in cached.steps if step.prefix_hits] == [{"b": 8}]
    assert cached.requests[1].arrival_s == 3.0


def test_a_block_of_another_text_shows_in_the_answer():
    class Careless(PagedPool):
        def lookup(self, token_ids, salt=""):
            return list(self.block_table("a")[1:3]) if "a" in self._tables else []

    assert served(Careless(12, 4)).answers["b"] != served(PagedPool(12, 4)).answers["b"]


def test_an_interrupt_aborts_who_runs_and_publishes_nothing_of_that_step():
    pool = PagedPool(12, 4)
    serving = Serving(JOBS[:1], pool, ChunkedPrefill(), token_budget=8, max_num_seqs=2)
    serving.run(interrupt_step=1)
    assert serving.steps[-1].finished == {"a": "abort"} and serving.answers == {"a": []}
    assert pool.lookup(PROMPT) == [0, 1] and pool.num_free_blocks == 12  # the first step computed 8 tokens


def test_who_never_gets_a_turn_is_said_to_starve():
    class Lazy(ChunkedPrefill):
        def schedule(self, state):
            return {r.request_id: 1 for r in state.running if r.num_computed_tokens < 3} or {
                r.request_id: 1 for r in (*state.running, *state.waiting)[:1]
            }

    endless = Serving([Job("a", PROMPT, 500)], CellCount(900), Lazy(), token_budget=8, max_num_seqs=1)
    with pytest.raises(PlanRefused, match="not finished after 20 steps: 0 requests wait and 1 run: starved"):
        endless.run(max_steps=20)


@pytest.mark.slow
def test_requests_arrive_when_the_engine_has_taken_so_many_steps():
    asked = [
        {"prompt": list(range(100, 140)), "max_tokens": 12, "arrival_step": 5, "user": "b"},
        {"prompt": list(range(300, 320)), "max_tokens": 12},
    ]
    with llmlab.load("smollm2-135m", engine="simulated", seqs=4, step_tokens=16) as engine:
        trace = llmlab.labs.play(engine, asked, ignore_eos=True)
        assert not engine.is_paused
    assert trace.validate() == [] and [request.user for request in trace.request_records] == ["", "b"]
    first = {row.request_id: step.step for step in reversed(trace.step_records) for row in step.scheduled}
    assert first["r2"] - first["r1"] == 5
