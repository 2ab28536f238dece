"""Our scheduler over a block pool, with a model that notices every wrong block; the trace of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_watcher import BlockWatcher
from llmlab.scheduling.contracts import BlockCopy, BlockPool, Policy
from llmlab.scheduling.policies import ChunkedPrefill, Fcfs, StaticBatching
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence as Seq
from llmlab.trace import Capabilities, FinishReason, Header, Request, Step, Token, Trace
from tests.scheduling.driver import Job, next_token


@dataclass
class PagedMemory:
    """What the KV of each slot was computed from: (token, position)."""

    pool: BlockPool
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        size = self.pool.block_size
        for pair in copies:
            for i in range(size):
                if pair.src * size + i in self.slots:
                    self.slots[pair.dst * size + i] = self.slots[pair.src * size + i]

    def slot(self, seq_id: str, position: int) -> int:
        size = self.pool.block_size
        return self.pool.block_table(seq_id)[position // size] * size + position % size

    def write(self, seq_id: str, token_ids: Sequence[int], first: int, num_tokens: int) -> None:
        for position in range(first, first + num_tokens):
            self.slots[self.slot(seq_id, position)] = token_ids[position], position

    def read(self, seq_id: str, num_tokens: int) -> list[tuple[int, int]]:
        return [self.slots[self.slot(seq_id, position)] for position in range(num_tokens)]


def random_jobs(rng: random.Random) -> dict[str, Job]:
    """Up to 12 requests with common prefixes, salts, priorities, late arrivals and aborts."""
    vocabulary = range(rng.choice([2, 10]))  # with two tokens, blocks of different prompts are often alike
    prefixes = [rng.choices(vocabulary, k=rng.randint(1, 20)) for _ in range(3)]
    jobs = {}
    for i in range(rng.randint(1, 12)):
        arrival = rng.randint(0, 12)
        jobs[f"r{i}"] = Job(
            prompt=tuple(rng.choice(prefixes) + rng.choices(vocabulary, k=rng.randint(1, 12))),
            num_output_tokens=rng.randint(1, 24),
            arrival_step=arrival,
            priority=rng.choice([0, 0, 0, 1, -1]),
            salt=rng.choice(["", "", "a"]),
            abort_step=arrival + rng.randint(0, 10) if rng.random() < 0.2 else None,
        )
    return jobs


def serve(
    jobs: Mapping[str, Job],
    pool: PagedPool,
    *,
    scheduler: Scheduler | None = None,
    policy: Policy | None = None,
    token_budget: int = 16,
    max_num_seqs: int = 4,
    max_steps: int = 1000,
    parents: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Trace, dict[str, list[int]]]:
    """The trace, and the outputs of the requests that were not aborted. `parents`: child -> job it is forked from."""
    scheduler = scheduler or Scheduler(
        pool, policy or ChunkedPrefill(), token_budget=token_budget, max_num_seqs=max_num_seqs
    )
    watcher, memory = BlockWatcher(pool), PagedMemory(pool)
    outputs: dict[str, list[int]] = {}
    requests, steps = [], []
    open_jobs = set(jobs)
    for step in range(max_steps):
        finished: dict[str, FinishReason] = {}
        for name, job in jobs.items():
            if job.arrival_step == step:
                outputs[name] = []
                seq = Seq(name, list(job.prompt), len(job.prompt), priority=job.priority, salt=job.salt)
                seq.parent_id = parent_id = parents.get(name, "")
                scheduler.add(seq)
                requests.append(
                    Request(
                        request_id=name, arrival_s=float(step), prompt_token_ids=job.prompt, salt=job.salt,
                        parent_id=parent_id,
                    )
                )  # fmt: skip
            if job.abort_step == step and name in scheduler:
                scheduler.abort(name)
                del outputs[name]
                finished[name] = "abort"
        plan = scheduler.schedule()
        rows = plan.records()
        memory.copy(plan.copies)
        for share in plan.shares:
            memory.write(share.seq.request_id, share.seq.token_ids, share.num_computed_tokens, share.num_tokens)
        scheduler.commit(plan)
        told, tokens = scheduler.told(plan), []
        for share in plan.shares:
            name, seq = share.seq.request_id, share.seq
            if share.samples:
                seq.token_ids.append(next_token(memory.read(name, seq.num_computed_tokens)) % 10)
                tokens.append(Token(request_id=name, token_id=seq.token_ids[-1]))
                outputs[name].append(seq.token_ids[-1])
                if seq.num_output_tokens == jobs[name].num_output_tokens:
                    scheduler.finish(name)
                    finished[name] = "length"
        steps.append(
            Step(
                step=step,
                t_s=step + 1.0,
                scheduled=rows,
                num_scheduled_tokens=plan.num_tokens,
                **told,
                finished=finished,
                tokens=tuple(tokens),
                kv=watcher.delta(scheduler.running, plan.copies),
            )
        )
        open_jobs -= finished.keys()
        if not open_jobs:
            break
    header = Header(
        engine="simulated",
        capabilities=Capabilities(kv="blocks", block_table=True, prefix_caching=True),
        block_size=pool.block_size,
        num_blocks=pool.num_blocks,
        max_num_seqs=scheduler.max_num_seqs,
        token_budget=token_budget,
    )
    return Trace(header, tuple(requests), tuple(steps)), outputs


def random_run(seed: int, pool_class: type[PagedPool] = PagedPool, scheduler_class: type[Scheduler] = Scheduler):
    """A run in little room: the jobs, the trace and the outputs."""
    rng = random.Random(seed)
    jobs = random_jobs(rng)
    pool = pool_class(rng.randint(15, 21), 4)
    policy = rng.choice([ChunkedPrefill, ChunkedPrefill, Fcfs, StaticBatching])()
    budget, seats = rng.randint(4, 24), rng.randint(1, 6)
    scheduler = scheduler_class(pool, policy, token_budget=budget, max_num_seqs=seats)
    return jobs, *serve(jobs, pool, scheduler=scheduler, token_budget=budget)
