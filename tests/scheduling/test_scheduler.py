"""The scheduler over the cell pool, with a model that notices every wrong cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.errors import PlanRefused
from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.contracts import SchedulerState
from llmlab.scheduling.policies import ChunkedPrefill, Fcfs, StaticBatching
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence
from tests.scheduling.driver import Job, run

POLICIES = [ChunkedPrefill, Fcfs, StaticBatching]


@st.composite
def workloads(draw):
    """Up to 12 jobs with shared prefixes, salts, priorities, late arrivals and aborts."""
    prefixes = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=3))
    jobs = {}
    for i in range(draw(st.integers(1, 12))):
        tail = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
        arrival = draw(st.integers(0, 12))
        jobs[f"r{i}"] = Job(
            prompt=tuple(draw(st.sampled_from(prefixes)) + tail),
            num_output_tokens=draw(st.integers(1, 12)),
            arrival_step=arrival,
            priority=draw(st.sampled_from([0, 0, 0, 1, -1])),
            salt=draw(st.sampled_from(["", "", "a"])),
            abort_step=draw(st.none() | st.integers(arrival, arrival + 10)),
        )
    return jobs


@given(
    jobs=workloads(),
    policy=st.sampled_from(POLICIES),
    num_cells=st.integers(45, 120),
    token_budget=st.integers(1, 24),
    max_num_seqs=st.integers(1, 5),
    prefix_caching=st.booleans(),
)
def test_any_schedule_gives_each_request_the_answer_it_has_alone(
    jobs, policy, num_cells, token_budget, max_num_seqs, prefix_caching
):
    together = run(
        jobs,
        policy=policy(),
        num_cells=num_cells,
        token_budget=token_budget,
        max_num_seqs=max_num_seqs,
        prefix_caching=prefix_caching,
    )
    for name, job in jobs.items():
        alone = run({name: Job(job.prompt, job.num_output_tokens)}, num_cells=256, prefix_caching=False)
        want = alone.outputs[name]
        assert together.outputs[name] == (want[: len(together.outputs[name])] if name in together.aborted else want)
    for plan in together.plans:
        assert plan.num_tokens <= token_budget
        if plan.preempted:  # room was short: nobody is admitted in the same step
            assert not plan.prefix_hits and all(share.num_computed_tokens for share in plan.shares)
            assert not set(plan.preempted) & {share.seq.request_id for share in plan.shares}


def test_a_long_prompt_never_holds_up_a_decode():
    jobs = {"short": Job((1, 2), 30), "long": Job(tuple(range(60)), 2, arrival_step=3)}
    outcome = run(jobs, token_budget=8)
    for plan in outcome.plans[3:20]:
        assert "short" in {share.seq.request_id for share in plan.shares}
        assert plan.num_tokens <= 8


def test_eight_requests_with_a_shared_prefix_compute_it_once():
    prefix = tuple(range(30))
    jobs = {f"r{i}": Job((*prefix, 100 + i), 4, arrival_step=1 if i else 0) for i in range(8)}
    outcome = run(jobs, num_cells=128, token_budget=64, max_num_seqs=8)
    hits = {name: n for plan in outcome.plans for name, n in plan.prefix_hits.items()}
    assert hits == {f"r{i}": 30 for i in range(1, 8)}
    computed = sum(plan.num_tokens for plan in outcome.plans)
    assert computed == 31 + 7 + 8 * 3


def test_salted_requests_never_share():
    prefix = tuple(range(30))
    jobs = {"a": Job((*prefix, 1), 4, salt="a"), "b": Job((*prefix, 1), 4, salt="b", arrival_step=1)}
    assert all(not plan.prefix_hits for plan in run(jobs).plans)


def test_a_preempted_request_comes_back_first_and_recomputes():
    jobs = {f"r{i}": Job((i, i + 1, i + 2), 40) for i in range(4)}
    outcome = run(jobs, num_cells=100, token_budget=16, max_num_seqs=4, prefix_caching=False)
    preempted = [name for plan in outcome.plans for name in plan.preempted]
    assert preempted and "r0" not in preempted  # the one that runs longest always finishes
    recomputed = sum(s.num_tokens for plan in outcome.plans for s in plan.shares if s.phase == "recompute")
    assert recomputed > 0


def test_the_watermark_keeps_the_preempted_from_thrashing(monkeypatch):
    def num_preempted() -> int:
        jobs = {f"r{i}": Job(tuple(range(i, i + 10)), 40) for i in range(6)}
        outcome = run(jobs, num_cells=120, token_budget=32, max_num_seqs=6, prefix_caching=False)
        return sum(len(plan.preempted) for plan in outcome.plans)

    guarded = num_preempted()
    monkeypatch.setattr("llmlab.scheduling.scheduler.WATERMARK_TOKENS", 0)
    assert 0 < guarded < num_preempted()


def test_room_promised_to_a_half_computed_prompt_is_not_given_away():
    jobs = {"long": Job(tuple(range(60)), 2), "other": Job(tuple(range(100, 130)), 2)}
    outcome = run(jobs, num_cells=80, token_budget=16, prefix_caching=False)
    assert all(not plan.preempted for plan in outcome.plans)
    assert outcome.finished == ["long", "other"]


def test_a_preempted_request_waits_with_nothing_computed_and_its_share_is_taken_out_of_the_plan():
    policy = Answers({"r0": 20}, {"r0": 1, "r1": 12}, {"r0": 1, "r1": 17}, victim="r0")
    scheduler = scheduler_with(policy, num_cells=49)
    for number in range(2):
        scheduler.commit(scheduler.schedule())
        scheduler.running["r0"].token_ids.append(number)
    scheduler.running["r1"].token_ids += range(9)
    plan = scheduler.schedule()
    assert plan.preempted == ["r0"] and [share.seq.request_id for share in plan.shares] == ["r1"]
    assert [(view.request_id, view.num_computed_tokens) for view in scheduler.waiting] == [("r0", 0), ("r2", 0)]


def test_urgent_requests_overtake_the_queue():
    jobs = {"first": Job((1,), 20), "slow": Job((2,), 5, priority=1), "urgent": Job((3,), 5, priority=-1)}
    outcome = run({**jobs}, max_num_seqs=1)
    assert outcome.finished == ["urgent", "first", "slow"]


def test_static_batching_closes_the_batch_until_its_last_request_ends():
    jobs = {f"r{i}": Job((i,), 3 + i) for i in range(4)} | {"late": Job((9,), 2, arrival_step=1)}
    outcome = run(jobs, policy=StaticBatching(), max_num_seqs=8)
    admitted = next(i for i, plan in enumerate(outcome.plans) if "late" in {s.seq.request_id for s in plan.shares})
    assert admitted == 6  # r3 yields its 6 tokens in steps 0..5


def test_fcfs_waits_with_a_prompt_that_does_not_fit_the_rest_of_the_budget():
    jobs = {"a": Job(tuple(range(6)), 2), "b": Job(tuple(range(10, 16)), 2)}
    first = run(jobs, policy=Fcfs(), token_budget=10).plans[0]
    assert [(s.seq.request_id, s.num_tokens) for s in first.shares] == [("a", 6)]


def test_ten_thousand_waiting_requests_do_not_slow_a_step_that_admits_nobody():
    scheduler = Scheduler(CellPool(64, 4), ChunkedPrefill(), token_budget=8, max_num_seqs=2)
    for i in range(10_000):
        scheduler.add(Sequence(f"r{i}", [1, 2], 2))
    scheduler.commit(scheduler.schedule())
    for seq in scheduler.running.values():
        seq.token_ids.append(7)
    before = scheduler.waiting
    scheduler.schedule()
    assert scheduler.waiting is before and scheduler.num_waiting == 9_998


class Answers:
    """A policy that answers what it is told."""

    def __init__(self, *plans: dict[str, int], victim: str = "") -> None:
        self._plans, self._victim = list(plans), victim

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        return self._plans.pop(0) if self._plans else {}

    def victim(self, state: SchedulerState) -> str:
        return self._victim


def scheduler_with(policy: Answers, num_cells: int = 64) -> Scheduler:
    scheduler = Scheduler(CellPool(num_cells, 8), policy, token_budget=32, max_num_seqs=2)
    for name in ("r0", "r1", "r2"):
        scheduler.add(Sequence(name, [int(name[1]) * 100 + i for i in range(20)], 20))
    return scheduler


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"r9": 1}, "step 0: 'r9' is neither waiting nor running"),
        ({"r0": 0}, "step 0: r0 was given 0 tokens, it has 20 uncomputed: give 1..20"),
        ({"r0": 21}, "step 0: r0 was given 21 tokens, it has 20 uncomputed: give 1..20"),
        ({"r0": 17, "r1": 16}, "step 0: 33 tokens scheduled, token_budget is 32: over by 1"),
        ({"r0": 1, "r1": 1, "r2": 1}, "step 0: 3 sequences would run, max_num_seqs is 2"),
    ],
)
def test_a_bad_plan_is_refused_with_a_sentence_and_changes_nothing(plan, sentence):
    scheduler = scheduler_with(Answers(plan))
    before = (scheduler.waiting, dict(scheduler.running), scheduler.pool.num_free_blocks)
    with pytest.raises(PlanRefused) as refused:
        scheduler.schedule()
    assert str(refused.value) == sentence
    assert (scheduler.waiting, dict(scheduler.running), scheduler.pool.num_free_blocks) == before


def test_a_policy_that_schedules_nothing_while_something_runs_is_refused():
    scheduler = scheduler_with(Answers({"r0": 5}))
    scheduler.commit(scheduler.schedule())
    with pytest.raises(PlanRefused, match=r"step 1: nothing was scheduled while \['r0'\] run"):
        scheduler.schedule()


def test_a_victim_that_does_not_run_is_refused():
    policy = Answers({"r0": 20}, {"r0": 13}, victim="r2")
    scheduler = scheduler_with(policy, num_cells=32)
    scheduler.commit(scheduler.schedule())
    scheduler.running["r0"].token_ids += range(13)
    with pytest.raises(PlanRefused) as refused:
        scheduler.schedule()
    assert str(refused.value) == "step 1: victim() named 'r2', which is not running (running: ['r0'])"


def test_a_policy_that_lets_everybody_starve_is_found_out():
    scheduler = scheduler_with(Answers())
    with pytest.raises(PlanRefused, match="starved: nothing was scheduled in 100 steps though 3 wait"):
        for _ in range(100):
            scheduler.schedule()


def test_a_sequence_that_can_never_fit_is_refused_at_the_door():
    scheduler = scheduler_with(Answers())
    with pytest.raises(PlanRefused, match="big has 65 tokens, the whole KV cache holds 64"):
        scheduler.add(Sequence("big", [0] * 65, 65))
