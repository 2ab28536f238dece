"""Bugs planted into pools and the scheduler, run on random requests: validate() finds each, by the name of its rule."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hand_written import from_step, state_after
from scheduled_traces import PagedPool, random_trace

from llmlab.errors import LlmlabError
from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.scheduler import Scheduler, Share, StepPlan
from llmlab.trace import CellDelta
from llmlab.trace.rules import Rule

SEEDS = range(40)
Bug = Callable[[Any], None]


@pytest.mark.parametrize("kind", ["blocks", "cells"])
def test_200_schedules_without_a_bug_have_no_violations(kind: str):
    num_preemptions = num_hits = 0
    for seed in range(200):
        trace = random_trace(seed, kind)
        assert [str(violation) for violation in trace.validate()] == [], f"seed {seed}"
        num_preemptions += sum(len(step.preempted) for step in trace.step_records)
        num_hits += sum(len(step.prefix_hits) for step in trace.step_records)
    assert num_preemptions > 20
    assert num_hits > 100


@pytest.mark.parametrize("kind", ["blocks", "cells"])
def test_a_trace_cut_out_anywhere_has_no_violations(kind: str):
    for seed in range(100):
        trace = random_trace(seed, kind)
        first = random.Random(seed).randrange(1, len(trace.step_records))
        start = state_after(trace, first)
        rest = from_step(trace, first, start)
        holders = {*start.written, *start.shared} if isinstance(start, CellDelta) else set(start.allocated)
        seen = holders | {name for step in rest.step_records for name in (*step.finished, *step.waiting)}
        assert [str(violation) for violation in rest.of_requests(list(seen)).validate()] == [], f"seed {seed}"


# ---- bugs of a paged pool


def free_forgets_the_last_block(pool: PagedPool) -> None:
    def free(seq_id: str) -> None:
        del pool.lengths[seq_id]
        for block in pool.tables.pop(seq_id)[:-1]:
            pool.release(block)

    pool.free = free  # type: ignore[method-assign]


def free_ignores_that_others_share_a_block(pool: PagedPool) -> None:
    def release(block: int) -> None:
        pool.counts[block] = 0
        pool.free_blocks[block] = None

    pool.release = release  # type: ignore[method-assign]


def a_shared_block_is_not_counted(pool: PagedPool) -> None:
    allocate = pool.allocate

    def wrong(seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        shared = [block for block in cached_blocks if pool.counts[block]]
        allocate(seq_id, num_tokens, cached_blocks)
        for block in shared:
            pool.counts[block] -= 1

    pool.allocate = wrong  # type: ignore[method-assign]


def a_cached_block_stays_on_the_free_list(pool: PagedPool) -> None:
    allocate = pool.allocate

    def wrong(seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        revived = [block for block in cached_blocks if not pool.counts[block]]
        allocate(seq_id, num_tokens, cached_blocks)
        for block in revived:
            pool.free_blocks[block] = None

    pool.allocate = wrong  # type: ignore[method-assign]


def lookup_ignores_the_salt(pool: PagedPool) -> None:
    chains = pool.chains
    pool.chains = lambda token_ids, salt: chains(token_ids, "")  # type: ignore[method-assign]


def the_hash_of_a_block_ignores_the_blocks_before(pool: PagedPool) -> None:
    chains, size = pool.chains, pool.block_size
    pool.chains = (
        lambda token_ids, salt: [  # type: ignore[method-assign]
            (salt, *chain[-size:])
            for chain in chains(token_ids, salt)  # type: ignore[index]
        ]
    )


def an_evicted_block_keeps_its_hash(pool: PagedPool) -> None:
    pool.evict = lambda block: None  # type: ignore[method-assign]


def a_block_gets_its_hash_before_it_is_full(pool: PagedPool) -> None:
    commit = pool.commit

    def wrong(seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        commit(seq_id, list(token_ids) + [0] * 3, num_computed_tokens + 3, salt)

    pool.commit = wrong  # type: ignore[method-assign]


def append_comes_a_token_late(pool: PagedPool) -> None:
    append = pool.append

    def wrong(seq_id: str, num_tokens: int = 1) -> list[Any]:
        pool.lengths[seq_id] -= 1
        try:
            return append(seq_id, num_tokens)
        finally:
            pool.lengths[seq_id] += 1

    pool.append = wrong  # type: ignore[method-assign]


def append_takes_a_block_for_each_call(pool: PagedPool) -> None:
    append = pool.append

    def wrong(seq_id: str, num_tokens: int = 1) -> list[Any]:
        if pool.free_blocks:
            block, _ = pool.free_blocks.popitem(last=False)
            pool.evict(block)
            pool.counts[block] = 1
            pool.tables[seq_id].append(block)
        return append(seq_id, num_tokens)

    pool.append = wrong  # type: ignore[method-assign]


# ---- bugs of the cell pool


def lookup_finds_one_cell_too_many(pool: CellPool) -> None:
    lookup = pool.lookup

    def wrong(token_ids: Sequence[int], salt: str = "") -> list[int]:
        found = lookup(token_ids, salt)
        for holder in (*pool._live.values(), *pool._kept.values()):
            if found and holder.cells[: len(found)] == found and len(found) + 1 < len(token_ids):
                return holder.cells[: len(found) + 1]
        return found

    pool.lookup = wrong  # type: ignore[method-assign]


def cells_of_another_salt_are_shared(pool: CellPool) -> None:
    lookup = pool.lookup

    def wrong(token_ids: Sequence[int], salt: str = "") -> list[int]:
        return max((lookup(token_ids, other) for other in ("", "a")), key=len)

    pool.lookup = wrong  # type: ignore[method-assign]


# ---- bugs of the scheduler


def change_the_plan(scheduler: Scheduler, change: Callable[[StepPlan], None]) -> None:
    schedule = scheduler.schedule

    def wrong() -> StepPlan:
        plan = schedule()
        change(plan)
        return plan

    scheduler.schedule = wrong  # type: ignore[method-assign]


def a_preempted_sequence_keeps_its_blocks(scheduler: Scheduler) -> None:
    def leave(request_id: str) -> Any:
        seq = scheduler.running.pop(request_id)
        if seq.num_computed_tokens == seq.num_tokens:  # only who has ended is freed
            scheduler.pool.free(request_id)
        else:
            pool = scheduler.pool
            assert isinstance(pool, PagedPool)
            pool.tables[request_id + "'"] = pool.tables.pop(request_id)
        return seq

    scheduler._leave = leave  # type: ignore[method-assign]


def a_preemption_is_not_told(scheduler: Scheduler) -> None:
    change_the_plan(scheduler, lambda plan: plan.preempted.clear())


def a_prefix_hit_is_not_told(scheduler: Scheduler) -> None:
    change_the_plan(scheduler, lambda plan: plan.prefix_hits.clear())


def the_budget_is_counted_without_decodes(scheduler: Scheduler) -> None:
    state = scheduler._state

    def wrong() -> Any:
        seen = state()
        return type(seen)(
            seen.step, seen.token_budget + len(seen.running), seen.max_num_seqs, seen.num_free_tokens, seen.waiting,
            seen.running,
        )  # fmt: skip

    scheduler._state = wrong  # type: ignore[method-assign]


def there_is_always_one_more_seat(scheduler: Scheduler) -> None:
    scheduler.max_num_seqs += 1


def who_ended_stays_in_the_batch(scheduler: Scheduler) -> None:
    finish, commit = scheduler.finish, scheduler.commit
    ended: list[Any] = []

    def wrong_finish(request_id: str) -> Any:
        ended.append(finish(request_id))
        return ended[-1]

    def wrong_commit(plan: StepPlan) -> None:
        alive = [share for share in plan.shares if share.seq.request_id in scheduler.running]
        commit(StepPlan(plan.step, alive))

    def add_an_ended_one(plan: StepPlan) -> None:
        if ended:
            seq = ended.pop()
            plan.shares.append(Share(seq, 1, seq.num_tokens - 1, "decode"))

    scheduler.finish, scheduler.commit = wrong_finish, wrong_commit  # type: ignore[method-assign]
    change_the_plan(scheduler, add_an_ended_one)


BUGS: list[tuple[str, str, Bug, set[Rule]]] = [
    ("blocks", "pool", free_forgets_the_last_block, {"kv_length", "total", "ref_count"}),
    ("blocks", "pool", free_ignores_that_others_share_a_block, {"ref_count"}),
    ("blocks", "pool", a_shared_block_is_not_counted, {"ref_count"}),
    ("blocks", "pool", a_cached_block_stays_on_the_free_list, {"total"}),
    ("blocks", "pool", lookup_ignores_the_salt, {"prefix"}),
    ("blocks", "pool", the_hash_of_a_block_ignores_the_blocks_before, {"prefix", "kv"}),
    ("blocks", "pool", an_evicted_block_keeps_its_hash, {"prefix"}),
    ("blocks", "pool", a_block_gets_its_hash_before_it_is_full, {"prefix"}),
    ("blocks", "pool", append_comes_a_token_late, {"kv_length"}),
    ("blocks", "pool", append_takes_a_block_for_each_call, {"kv_length"}),
    ("cells", "pool", lookup_finds_one_cell_too_many, {"prefix"}),
    ("cells", "pool", cells_of_another_salt_are_shared, {"prefix"}),
    ("blocks", "scheduler", a_preempted_sequence_keeps_its_blocks, {"request", "preempted", "kv_length"}),
    ("blocks", "scheduler", a_preemption_is_not_told, {"computed", "prefix"}),
    ("cells", "scheduler", a_prefix_hit_is_not_told, {"computed"}),
    ("blocks", "scheduler", the_budget_is_counted_without_decodes, {"budget"}),
    ("cells", "scheduler", there_is_always_one_more_seat, {"seats"}),
    ("blocks", "scheduler", who_ended_stays_in_the_batch, {"end"}),
]


@pytest.mark.parametrize(("kind", "part", "bug", "rules"), BUGS, ids=[bug.__name__ for _, _, bug, _ in BUGS])
def test_a_planted_bug_is_found_by_its_rule(kind: str, part: str, bug: Bug, rules: set[Rule]):
    num_found = 0
    for seed in SEEDS:
        try:
            trace = random_trace(seed, kind, **{f"break_{part}": bug})
        except (LlmlabError, KeyError, IndexError, AssertionError):
            continue  # the bug broke the run itself
        if violations := trace.validate():
            at_first = {violation.rule for violation in violations if violation.step == violations[0].step}
            assert at_first & rules, f"seed {seed}: {violations[0]}"
            num_found += 1
    assert num_found, "found in no run"
