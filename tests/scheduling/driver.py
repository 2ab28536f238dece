"""A model in place of llama.cpp: it reads the KV of every token it depends on, so a wrong cell gives a wrong answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.contracts import Policy
from llmlab.scheduling.policies import ChunkedPrefill
from llmlab.scheduling.scheduler import Scheduler, StepPlan
from llmlab.scheduling.sequence import Sequence


@dataclass(frozen=True)
class Job:
    """A request of a test: when it comes, what it asks, how many tokens it wants."""

    prompt: tuple[int, ...]
    num_output_tokens: int
    arrival_step: int = 0
    priority: int = 0
    salt: str = ""
    abort_step: int | None = None


@dataclass
class Outcome:
    outputs: dict[str, list[int]] = field(default_factory=dict)
    plans: list[StepPlan] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)


def next_token(kv: list[tuple[int, int]]) -> int:
    """Depends on every token and its position."""
    return hash(tuple(kv)) % 997


def run(
    jobs: Mapping[str, Job],
    *,
    policy: Policy | None = None,
    num_cells: int = 128,
    token_budget: int = 16,
    max_num_seqs: int = 4,
    prefix_caching: bool = True,
    max_steps: int = 5000,
) -> Outcome:
    """Serve all jobs and check the books of the pool after every step."""
    pool = CellPool(num_cells, 2 * max_num_seqs, prefix_caching=prefix_caching)
    scheduler = Scheduler(pool, policy or ChunkedPrefill(), token_budget=token_budget, max_num_seqs=max_num_seqs)
    kv: dict[int, tuple[int, int]] = {}  # cell -> (token, position)
    done = Outcome()
    for step in range(max_steps):
        for name, job in jobs.items():
            if job.arrival_step == step:
                done.outputs[name] = []
                scheduler.add(Sequence(name, list(job.prompt), len(job.prompt), priority=job.priority, salt=job.salt))
            if job.abort_step == step and name in scheduler:
                scheduler.abort(name)
                done.aborted.append(name)
        plan = scheduler.schedule()
        done.plans.append(plan)
        cells = pool.place((share.seq.request_id, share.num_tokens) for share in plan.shares)
        for share in plan.shares:
            for position in range(share.num_computed_tokens, share.num_computed_tokens + share.num_tokens):
                kv[cells.pop(0)] = (share.seq.token_ids[position], position)
        scheduler.commit(plan)
        for share in plan.shares:
            name, seq = share.seq.request_id, share.seq
            held = [kv[cell] for cell in pool.block_table(name)]
            assert held == [(t, i) for i, t in enumerate(seq.token_ids)][: seq.num_computed_tokens]
            if share.samples:
                seq.token_ids.append(next_token(held))
                done.outputs[name].append(seq.token_ids[-1])
                if len(done.outputs[name]) == jobs[name].num_output_tokens:
                    scheduler.finish(name)
                    done.finished.append(name)
        check_books(pool, scheduler)
        if len(done.finished) + len(done.aborted) == len(jobs) and step >= max(j.arrival_step for j in jobs.values()):
            return done
    raise AssertionError(f"not finished after {max_steps} steps")


def check_books(pool: CellPool, scheduler: Scheduler) -> None:
    """held + free = total; reference counts match the tables; a sequence holds what it has computed."""
    tables = {name: pool.block_table(name) for name in scheduler.running}
    counts: dict[int, int] = {}
    for name, table in tables.items():
        assert len(table) == pool.num_tokens(name) == scheduler.running[name].num_computed_tokens
        assert len(set(table)) == len(table)
        for cell in table:
            counts[cell] = counts.get(cell, 0) + 1
    assert all(pool.ref_count(cell) == counts.get(cell, 0) for cell in range(pool.num_blocks))
    assert len(counts) + pool.num_free_blocks == pool.num_blocks
    assert len(pool.seats()) <= pool.num_seats
    assert len(scheduler.running) <= scheduler.max_num_seqs
