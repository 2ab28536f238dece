"""Several answers to one prompt (n > 1): its blocks are shared by fork, and copied by who writes on in a shared one."""

from __future__ import annotations

import random

import pytest

from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool
from llmlab.scheduling.policies import ChunkedPrefill
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Trace
from tests.scheduling.driver import Job
from tests.scheduling.paged_driver import random_jobs, serve

PROMPT = tuple(range(30))
FOUR = {name: Job(PROMPT, 3) for name in ("a", "b", "c", "d")}
OF_A = {"b": "a", "c": "a", "d": "a"}


def held(trace: Trace, step: int) -> int:
    """Blocks in some block table after that step."""
    delta = trace.step_records[step].kv
    return delta.num_blocks - delta.num_free


@pytest.mark.parametrize("caching", [True, False])
def test_four_answers_to_30_tokens_hold_two_blocks_of_16_then_five(caching: bool):
    pool = PagedPool(8, 16, prefix_caching=caching)
    trace, outputs = serve(FOUR, pool, token_budget=64, parents=OF_A)
    first, second = trace.step_records[:2]
    assert [row.request_id for row in first.scheduled] == ["a"] and first.num_scheduled_tokens == 29
    assert first.forked == OF_A and set(first.kv.ref_counts.values()) == {4} and held(trace, 0) == 2
    assert second.num_scheduled_tokens == 4 and len(second.tokens) == 4 and held(trace, 1) == 5
    shared = pool_table = first.kv.allocated["a"][1]
    assert list(second.kv.copied.values()) == [pool_table] * 3  # the last one writes into the block itself
    assert second.kv.ref_counts == {shared: 1} | dict.fromkeys(second.kv.copied, 1)
    assert trace.validate() == [] and len({tuple(tokens) for tokens in outputs.values()}) == 1
    assert pool.num_free_blocks == 8


def test_forks_change_no_answer_and_leave_sound_traces_whatever_else_runs():
    num_forked = num_copied = num_preempted = 0
    for seed in range(60):
        rng = random.Random(seed)
        jobs = random_jobs(rng)
        for name in list(jobs)[: rng.randint(1, 3)]:
            job = jobs[name]
            for i in range(rng.randint(1, 4)):  # a parent and its children may be aborted, each at its own time
                abort = job.arrival_step + rng.randint(0, 10) if rng.random() < 0.2 else None
                jobs[f"{name}-{i}"] = Job(job.prompt, rng.randint(1, 24), job.arrival_step, 0, job.salt, abort)
        parents = {name: name.split("-")[0] for name in jobs if "-" in name}
        pool = PagedPool(rng.randint(14, 40), 4, prefix_caching=rng.random() < 0.5)
        if not seed % 6:  # slow
            pool = CheckedPool(pool)
        how = dict(token_budget=rng.randint(1, 24), max_num_seqs=rng.randint(1, 6))
        trace, outputs = serve(jobs, pool, parents=parents, **how)
        assert trace.validate() == [], seed
        for name, tokens in outputs.items():
            alone = serve({name: Job(jobs[name].prompt, jobs[name].num_output_tokens)}, PagedPool(64, 4))[1]
            assert tokens == alone[name], (seed, name)
        assert pool.num_free_blocks == pool.num_blocks
        num_forked += sum(len(step.forked) for step in trace.step_records)
        num_copied += sum(len(step.kv.copied) for step in trace.step_records)
        num_preempted += sum(len(step.preempted) for step in trace.step_records)
    assert num_forked > 40 and num_copied > 20 and num_preempted > 10


def sequence(name: str, prompt: tuple[int, ...] = PROMPT, parent_id: str = "", salt: str = "") -> Sequence:
    return Sequence(name, list(prompt), len(prompt), parent_id=parent_id, salt=salt)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(PagedPool(64, 4), ChunkedPrefill(), token_budget=64, max_num_seqs=2)


def test_no_policy_sees_a_child_before_it_is_forked_and_it_counts_as_waiting(scheduler: Scheduler):
    scheduler.add(sequence("a"))
    scheduler.add(sequence("b", parent_id="a"))
    assert [view.request_id for view in scheduler.waiting] == ["a"] and "b" in scheduler
    assert scheduler.told(None)["waiting"] == ("a", "b") and scheduler.told(None)["num_waiting"] == 2


@pytest.mark.parametrize(
    "child",
    [
        sequence("b", PROMPT[1:], parent_id="a"),
        sequence("b", parent_id="a", salt="other adapter"),
        sequence("b", parent_id="nobody"),
    ],
)
def test_who_cannot_share_the_prompt_is_a_request_like_others(scheduler: Scheduler, child: Sequence):
    scheduler.add(sequence("a"))
    scheduler.add(child)
    assert sorted(share.seq.request_id for share in scheduler.schedule().shares) == ["a", "b"]


def test_children_of_an_aborted_parent_and_those_without_a_seat_are_served_all_the_same(scheduler: Scheduler):
    for name in ("a", "b", "c", "d"):
        scheduler.add(sequence(name, parent_id="" if name == "a" else "a"))
    plan = scheduler.schedule()
    scheduler.commit(plan)
    assert plan.forked == {"b": "a"} and [view.request_id for view in scheduler.waiting] == ["c", "d"]
    scheduler.add(sequence("e", (1, 2, 3)))
    scheduler.add(sequence("f", (1, 2, 3), parent_id="e"))
    scheduler.abort("e")
    assert [view.request_id for view in scheduler.waiting] == ["c", "d", "f"]
    scheduler.add(sequence("g", (1, 2, 3), parent_id="f"))
    scheduler.abort("g")
    assert "g" not in scheduler and not scheduler.told(None)["num_waiting"] - 3


def test_a_prompt_that_is_cached_up_to_its_last_token_sends_its_children_to_the_queue(scheduler: Scheduler):
    whole = tuple(range(29))  # seven blocks of 4, and one token
    scheduler.add(sequence("before", whole))
    scheduler.commit(scheduler.schedule())
    scheduler.finish("before")
    scheduler.add(sequence("a", whole))
    scheduler.add(sequence("b", whole, parent_id="a"))
    plan = scheduler.schedule()
    scheduler.commit(plan)
    assert plan.prefix_hits == {"a": 28} and not plan.forked
    assert scheduler.schedule().prefix_hits == {"b": 28}
