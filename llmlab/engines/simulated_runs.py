"""simulate(): requests on simulated workers, from the first arrival to the last token, as fast as this machine counts.

One worker, several that share the requests (data parallel), or prefill on some and decode on others with the KV sent
over a link (disaggregated). The blocks of all workers stand in one trace, numbered one worker after the other.
This file must not know real time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmlab.engines.cost_model import CostModel
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_worker import Asked, SimulatedWorker
from llmlab.errors import EngineError
from llmlab.scheduling.sequence import Sequence as Seq
from llmlab.trace import BlockDelta, Step, Trace


@dataclass(frozen=True, slots=True)
class Split:
    """Prefill on some workers, decode on others.

    Source: Zhong et al., DistServe, OSDI 2024; Patel et al., Splitwise, ISCA 2024.
    """

    num_prefill: int = 1
    num_decode: int = 1
    # What the KV of one token takes on its way, in seconds; and what a transfer takes beside that.
    transfer_token_s: float = 0.0
    transfer_s: float = 0.0

    @property
    def num_workers(self) -> int:
        return self.num_prefill + self.num_decode


def simulate(
    asked: Iterable[Asked],
    room: Room,
    cost: CostModel,
    *,
    num_workers: int = 1,
    split: Split | None = None,
    seed: int = 0,
    jitter: float = 0.0,
    about: dict[str, Any] | None = None,
) -> Trace:
    """The trace of these requests. `room` and `cost` are those of each worker; `about`: fields of the header.

    Each step tells its worker where there are several (`step.extra["worker"]`).

    Raises: PlanRefused for a request that can never fit, or a policy that breaks its contract; EngineError for workers
    that cannot be.
    """
    asked = sorted(asked, key=lambda one: one.request.arrival_s)
    num_workers = split.num_workers if split else num_workers
    if num_workers < 1:
        raise EngineError(f"{num_workers} workers cannot serve anybody; 1 or more.")
    if num_workers > 1 and room.kv == "cells":
        raise EngineError("llama.cpp's cells are of one process: several workers are simulated with kv='blocks'.")
    workers = [SimulatedWorker(room, cost, seed=seed + i, jitter=jitter) for i in range(num_workers)]
    steps = _Service(workers, asked, split).run()
    header = room.header(num_workers, **(about or {}))
    return Trace(header, tuple(one.request for one in asked), tuple(steps))


class _Service:
    """Workers, the requests on their way to them, and a queue of what happens when."""

    def __init__(self, workers: Sequence[SimulatedWorker], asked: Sequence[Asked], split: Split | None) -> None:
        self._workers, self._split = workers, split
        self._entries = range(split.num_prefill if split else len(workers))  # workers that take new requests
        self._arrivals = iter(asked)
        self._next = next(self._arrivals, None)
        self._inboxes: list[list[Asked]] = [[] for _ in workers]
        # Sequences whose KV is there in a moment, or is there and has found no room yet: (due, request, from, to)
        self._transfers: list[tuple[float, str, int, int]] = []
        self._moving: dict[str, tuple[Asked, Seq]] = {}
        self._ready: list[list[tuple[str, int]]] = [[] for _ in workers]
        self._ends: list[tuple[float, int]] = []  # heap of (end of a step, worker)
        self._steps: list[Step] = []
        self._deltas = _Deltas(workers)

    def run(self) -> list[Step]:
        while self._next is not None or self._ends or self._transfers:
            self._happen()
        if self._moving or any(worker.asked for worker in self._workers):
            raise EngineError(
                "The run cannot go on: sequences find no room on the decode workers, or there is none left to prefill "
                "the next. Give more kv_tokens."
            )
        return self._steps

    def _happen(self) -> None:
        """The next thing that happens, and the steps that begin then."""
        times = [self._next.request.arrival_s] if self._next is not None else []
        times += [self._ends[0][0]] if self._ends else []
        times += [self._transfers[0][0]] if self._transfers else []
        now_s = min(times)
        while self._ends and self._ends[0][0] <= now_s:
            _, number = heapq.heappop(self._ends)
            self._end(number, now_s)
        while self._transfers and self._transfers[0][0] <= now_s:
            _, request_id, source, target = heapq.heappop(self._transfers)
            self._ready[target].append((request_id, source))
        while self._next is not None and self._next.request.arrival_s <= now_s:
            self._inboxes[self._least_busy(self._entries)].append(self._next)
            self._next = next(self._arrivals, None)
        for number in range(len(self._workers)):
            self._begin(number, now_s)

    def _begin(self, number: int, now_s: float) -> None:
        worker, inbox = self._workers[number], self._inboxes[number]
        if worker.is_running:
            return
        for one in inbox:
            worker.add(one)
        inbox.clear()
        self._adopt(number)
        if worker.has_work:
            heapq.heappush(self._ends, (now_s + worker.begin(), number))

    def _end(self, number: int, now_s: float) -> None:
        worker = self._workers[number]
        step = worker.end(now_s)
        if len(self._workers) > 1:
            kv = self._deltas.of_step(number, step)
            step = msgspec.structs.replace(step, step=len(self._steps), kv=kv, extra={"worker": number})
        self._steps.append(step)
        if self._split and number in self._entries:
            for token in step.tokens:
                if token.request_id not in step.finished:
                    self._send(number, token.request_id, now_s)

    # ---- disaggregation

    def _send(self, source: int, request_id: str, now_s: float) -> None:
        """Its prompt is computed: its KV goes to a decode worker."""
        assert self._split is not None
        asked, seq = self._workers[source].set_aside(request_id)
        self._moving[request_id] = asked, seq
        target = self._least_busy(range(self._split.num_prefill, len(self._workers)))
        due_s = now_s + self._split.transfer_s + seq.num_computed_tokens * self._split.transfer_token_s
        heapq.heappush(self._transfers, (due_s, request_id, source, target))

    def _adopt(self, number: int) -> None:
        """Sequences whose KV has come, in order, as far as there is room."""
        ready = self._ready[number]
        while ready:
            request_id, source = ready[0]
            if not self._workers[number].adopt(*self._moving[request_id]):
                return
            self._deltas.leave(request_id, source, self._workers[source].release(request_id))
            del self._moving[request_id]
            ready.pop(0)

    def _least_busy(self, numbers: range) -> int:
        """The worker with the fewest tokens to compute, those on their way included."""

        def load(number: int) -> tuple[int, int]:
            waiting = [*self._inboxes[number], *(self._moving[r][0] for r, _ in self._ready[number])]
            waiting += [self._moving[r][0] for _, r, _, target in self._transfers if target == number]
            return self._workers[number].num_tokens_left + sum(len(one.tokens) for one in waiting), number

        return min(numbers, key=load) if len(numbers) > 1 else numbers[0]


class _Deltas:
    """The KV caches of several workers as one: each tells what changed when a step of its own ends.

    A sequence that moves leaves one worker in the middle of a step there; that is told with its first step elsewhere.
    """

    def __init__(self, workers: Sequence[SimulatedWorker]) -> None:
        self._first = [0, *itertools.accumulate(worker.pool.num_blocks for worker in workers)]  # block of each worker
        # As told so far.
        self._num_free = [worker.pool.num_free_blocks for worker in workers]
        self._ref_counts: dict[int, int] = {}
        self._left: dict[str, tuple[int, tuple[int, ...]]] = {}  # request -> worker and blocks that it left, not told
        self._told_early: dict[tuple[int, str], tuple[int, ...]] = {}
        self._workers = workers

    def leave(self, request_id: str, worker: int, blocks: tuple[int, ...]) -> None:
        self._left[request_id] = worker, tuple(self._first[worker] + block for block in blocks)

    def of_step(self, number: int, step: Step) -> BlockDelta:
        """What has changed in the cache of all with this step of one."""
        own, first = step.kv, self._first[number]
        assert isinstance(own, BlockDelta)
        freed: dict[str, tuple[int, ...]] = {}
        changed: dict[int, int] = {}
        counts: dict[int, int] = {}  # of blocks of which something else was told in the meantime
        for request_id in (*own.allocated, *step.preempted, *step.finished):
            if request_id in self._left and self._left[request_id][0] != number:
                source, blocks = self._left.pop(request_id)
                freed[request_id] = blocks
                self._told_early[source, request_id] = blocks
                for block in blocks:
                    changed[block] = changed.get(block, self._ref_counts[block]) - 1
                    self._num_free[source] += not changed[block]
        for request_id, blocks in own.freed.items():
            if (early := self._told_early.pop((number, request_id), None)) is not None:
                counts |= {block: self._workers[number].pool.ref_count(block - first) for block in early}
                continue
            if request_id in self._left and self._left[request_id][0] == number:
                del self._left[request_id]
            freed[request_id] = (*freed.get(request_id, ()), *(first + block for block in blocks))
        changed |= counts | {first + block: count for block, count in own.ref_counts.items()}
        self._ref_counts |= changed
        self._num_free[number] = own.num_free
        return BlockDelta(
            allocated={r: tuple(first + block for block in blocks) for r, blocks in own.allocated.items()},
            freed=freed,
            cached=tuple(first + block for block in own.cached),
            evicted=tuple(first + block for block in own.evicted),
            ref_counts=changed,
            num_free=sum(self._num_free),
            num_blocks=self._first[-1],
        )
