"""Traces of our own scheduler on random requests, over the cell pool and over a paged pool, without a model."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.cell_pool import CellPool
from llmlab.scheduling.contracts import BlockCopy, PrefixCachingPool
from llmlab.scheduling.policies import ChunkedPrefill, Fcfs, StaticBatching
from llmlab.scheduling.scheduler import Scheduler, StepPlan
from llmlab.scheduling.sequence import Sequence as Seq
from llmlab.trace import (
    BlockDelta,
    Capabilities,
    CellDelta,
    FinishReason,
    Header,
    KvDelta,
    Request,
    Step,
    Token,
    Trace,
)
from llmlab.trace.runs import runs


class PagedPool:
    """Blocks with a hash chain and an LRU free list, as small as it can be."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.free_blocks = OrderedDict.fromkeys(range(num_blocks))
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}
        self.counts = [0] * num_blocks
        self.hash_of: dict[int, object] = {}
        self.block_with: dict[object, int] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_blocks)

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        found: list[int] = []
        for chain in self.chains(token_ids[: len(token_ids) - 1], salt):
            if chain not in self.block_with:
                break
            found.append(self.block_with[chain])
        return found

    def chains(self, token_ids: Sequence[int], salt: str) -> list[object]:
        size = self.block_size
        return [(salt, *token_ids[:end]) for end in range(size, len(token_ids) + 1, size)]

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        num_new = -(-num_tokens // self.block_size)
        if num_new + sum(not self.counts[b] for b in cached_blocks) > self.num_free_blocks:
            raise NoFreeBlocks
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.counts[block] += 1
        self.tables[seq_id] = list(cached_blocks)
        self.lengths[seq_id] = len(cached_blocks) * self.block_size
        self.append(seq_id, num_tokens)

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        table = self.tables[seq_id]
        num_new = -(-(self.lengths[seq_id] + num_tokens) // self.block_size) - len(table)
        if num_new > self.num_free_blocks:
            raise NoFreeBlocks
        for _ in range(num_new):
            block, _ = self.free_blocks.popitem(last=False)
            self.evict(block)
            self.counts[block] = 1
            table.append(block)
        self.lengths[seq_id] += num_tokens
        return []

    def evict(self, block: int) -> None:
        if block in self.hash_of:
            del self.block_with[self.hash_of.pop(block)]

    def fork(self, parent_id: str, child_id: str) -> None:
        raise NotImplementedError

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        for block, chain in zip(self.tables[seq_id], self.chains(token_ids[:num_computed_tokens], salt), strict=False):
            if block not in self.hash_of and chain not in self.block_with:
                self.hash_of[block] = chain
                self.block_with[chain] = block

    def free(self, seq_id: str) -> None:
        del self.lengths[seq_id]
        for block in reversed(self.tables.pop(seq_id)):
            self.release(block)

    def release(self, block: int) -> None:
        self.counts[block] -= 1
        if not self.counts[block]:
            self.free_blocks[block] = None

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        return tuple(self.tables[seq_id])

    def num_tokens(self, seq_id: str) -> int:
        return self.lengths[seq_id]

    def ref_count(self, block_id: int) -> int:
        return self.counts[block_id]


class Watcher(Protocol):
    pool: PrefixCachingPool

    def forward(self, plan: StepPlan) -> None: ...
    def delta(self) -> KvDelta: ...


class BlockWatcher:
    """The change of a paged pool from the end of one step to the end of the next."""

    def __init__(self, pool: PagedPool) -> None:
        self.pool = pool
        self.tables: dict[str, list[int]] = {}
        self.counts = list(pool.counts)
        self.hash_of: dict[int, object] = {}

    def forward(self, plan: StepPlan) -> None:
        pass

    def delta(self) -> BlockDelta:
        pool, before = self.pool, self.tables
        now = {name: list(table) for name, table in pool.tables.items()}
        gone = {name: tuple(b for b in table if b not in now.get(name, [])) for name, table in before.items()}
        new = {name: tuple(b for b in table if b not in before.get(name, [])) for name, table in now.items()}
        lost = [b for b, chain in self.hash_of.items() if pool.hash_of.get(b) != chain]
        got = [b for b, chain in pool.hash_of.items() if self.hash_of.get(b) != chain]
        changed = {b: n for b, n in enumerate(pool.counts) if n != self.counts[b]}
        self.tables, self.counts, self.hash_of = now, list(pool.counts), dict(pool.hash_of)
        return BlockDelta(
            allocated={name: blocks for name, blocks in new.items() if blocks},
            freed={name: blocks for name, blocks in gone.items() if blocks},
            cached=tuple(got),
            evicted=tuple(lost),
            ref_counts=changed,
            num_free=pool.num_free_blocks,
            num_blocks=pool.num_blocks,
        )


class CellWatcher:
    """The same for the cells of llama.cpp."""

    def __init__(self, pool: CellPool) -> None:
        self.pool = pool
        self.cells: dict[str, list[int]] = {}
        self.writer: dict[int, str] = {}

    def forward(self, plan: StepPlan) -> None:
        shares = [(share.seq.request_id, share.num_tokens) for share in plan.shares]
        names = [name for name, n in shares for _ in range(n)]
        self.writer = dict(zip(self.pool.place(shares), names, strict=True))

    def delta(self) -> CellDelta:
        seats, by_seat, before = self.pool.seats(), self.pool.cells_by_seat(), self.cells
        now = {seats[seat]: list(cells) for seat, cells in by_seat.items()}
        written: dict[str, list[tuple[int, int, int]]] = {}
        shared, freed = {}, {}
        for name, cells in now.items():
            old = {cell for cell in before.get(name, ()) if cell not in self.writer}
            for position, cell in enumerate(cells):
                if self.writer.get(cell) == name:
                    written.setdefault(name, []).append((cell, position, 1))
            shared[name] = runs(sorted(c for c in cells if c not in old and self.writer.get(c) != name))
        for name, cells in before.items():
            kept = {cell for cell in now.get(name, ()) if cell not in self.writer}
            freed[name] = runs(sorted(cell for cell in cells if cell not in kept))
        self.cells = now
        used = {cell for cells in now.values() for cell in cells}
        return CellDelta(
            written={name: tuple(cells) for name, cells in written.items()},
            shared={name: cells for name, cells in shared.items() if cells},
            freed={name: cells for name, cells in freed.items() if cells},
            num_used=len(used),
            num_cells=self.pool.num_blocks,
            num_attended=self.pool.num_blocks,
        )


def random_trace(
    seed: int,
    kind: str,
    *,
    break_pool: Callable[[PrefixCachingPool], None] = lambda pool: None,
    break_scheduler: Callable[[Scheduler], None] = lambda scheduler: None,
    max_steps: int = 400,
) -> Trace:
    """Up to 12 requests with common prefixes, salts, priorities, late arrivals and aborts, in little room."""
    rng = random.Random(seed)
    max_num_seqs, token_budget = rng.randint(1, 6), rng.randint(4, 24)
    watcher: Watcher
    if kind == "cells":
        watcher = CellWatcher(CellPool(rng.randint(57, 80), 2 * max_num_seqs, prefix_caching=rng.random() < 0.8))
    else:
        watcher = BlockWatcher(PagedPool(rng.randint(15, 21), 4))
    break_pool(watcher.pool)
    policy = rng.choice([ChunkedPrefill, ChunkedPrefill, Fcfs, StaticBatching])()
    scheduler = Scheduler(watcher.pool, policy, token_budget=token_budget, max_num_seqs=max_num_seqs)
    break_scheduler(scheduler)
    jobs = _jobs(rng)
    requests = [request for request, *_ in jobs]
    steps: list[Step] = []
    for number in range(max_steps):
        aborted: dict[str, FinishReason] = {}
        for request, arrival_step, _, abort_step in jobs:
            name = request.request_id
            if arrival_step == number:
                prompt = list(request.prompt_token_ids)
                scheduler.add(Seq(name, prompt, len(prompt), priority=request.priority, salt=request.salt))
            if abort_step == number and name in scheduler:
                scheduler.abort(name)
                aborted[name] = "abort"
        steps.append(_step(number, scheduler, watcher, {r.request_id: n for r, _, n, _ in jobs}, rng, aborted))
        ended = {name for step in steps for name in step.finished}
        if len(ended) == len(jobs):
            break
    header = Header(
        engine="simulated",
        capabilities=Capabilities(kv="cells" if kind == "cells" else "blocks", prefix_caching=True),
        num_cells=watcher.pool.num_blocks if kind == "cells" else None,
        num_blocks=watcher.pool.num_blocks if kind == "blocks" else None,
        block_size=4 if kind == "blocks" else None,
        max_num_seqs=max_num_seqs,
        token_budget=token_budget,
    )
    return Trace(header, tuple(requests), tuple(steps))


def _jobs(rng: random.Random) -> list[tuple[Request, int, int, int | None]]:
    """(request, arrival step, output tokens, abort step)."""
    vocabulary = range(rng.choice([2, 10]))  # with two tokens, blocks of different prompts are often alike
    prefixes = [rng.choices(vocabulary, k=rng.randint(1, 20)) for _ in range(3)]
    jobs = []
    for i in range(rng.randint(1, 12)):
        prompt = rng.choice(prefixes) + rng.choices(vocabulary, k=rng.randint(1, 12))
        arrival_step = rng.randint(0, 12)
        request = Request(
            request_id=f"r{i}",
            arrival_s=float(arrival_step),
            prompt_token_ids=tuple(prompt),
            priority=rng.choice([0, 0, 0, 1, -1]),
            salt=rng.choice(["", "", "a"]),
        )
        abort_step = arrival_step + rng.randint(0, 10) if rng.random() < 0.2 else None
        jobs.append((request, arrival_step, rng.randint(1, 24), abort_step))
    return sorted(jobs, key=lambda job: job[1])


def _step(
    number: int,
    scheduler: Scheduler,
    watcher: Watcher,
    wanted: dict[str, int],
    rng: random.Random,
    finished: dict[str, FinishReason],
) -> Step:
    plan = scheduler.schedule()
    rows = plan.records()
    watcher.forward(plan)
    scheduler.commit(plan)
    told, tokens = scheduler.told(plan), []
    for share in plan.shares:
        name = share.seq.request_id
        if share.samples:
            share.seq.token_ids.append(rng.randrange(2))
            tokens.append(Token(request_id=name, token_id=share.seq.token_ids[-1]))
            if share.seq.num_output_tokens == wanted[name]:
                scheduler.finish(name)
                finished[name] = "length"
    return Step(
        step=number,
        t_s=number + 1.0,
        scheduled=rows,
        num_scheduled_tokens=plan.num_tokens,
        **told,
        finished=finished,
        tokens=tuple(tokens),
        kv=watcher.delta(),
    )
