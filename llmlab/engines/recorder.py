"""Recorder: what came from an engine, kept as it came (bytes) until somebody asks for a trace.

On the way of a token there is one append. What costs, decoding and rebuilding the KV cache, happens when a trace is cut
out. Memory is bounded: the oldest steps are folded into one state of the KV cache.
This file must not know sockets or runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from llmlab.engines.messages import decode_step
from llmlab.trace import Header, Incident, Request, Step, Trace
from llmlab.trace.kv_state import BlockState, CellState
from llmlab.trace.records import CellDelta, KvDelta

MAX_BYTES = 64 * 2**20
# States of the KV cache that are kept, so that the next slice need not begin with the first step.
MAX_SNAPSHOTS = 32
# Steps that are kept decoded as well, for those who follow a run as it goes.
NUM_DECODED = 32
# Folding costs more per call than per step.
FOLD_SHARE = 8


class News(NamedTuple):
    """What follows a step: to ask for what comes after it, give `next_step`, the number of a step to come."""

    requests: list[Request]
    steps: list[Step]
    next_step: int


class Recorder:
    """Steps and requests of one loaded engine. One thread adds, any thread cuts traces out."""

    def __init__(self, header: Header, max_bytes: int = MAX_BYTES) -> None:
        self.header, self._max_bytes = header, max_bytes
        self._lock = threading.Lock()
        self._requests: dict[str, Request] = {}
        self._steps: list[bytes] = []
        self._decoded: deque[Step] = deque(maxlen=NUM_DECODED)  # the newest
        self._first = 0  # number of the oldest step that is still here, counted from the first that came
        self._num_bytes = 0
        # number of a step -> the KV cache before it; the oldest step that is still here always has one
        self._kv_before: dict[int, KvDelta | None] = {0: header.kv_at_start}
        self._ended: set[str] = set()  # ended in a step that was folded away, but still hold KV
        self._death: str | None = None

    @property
    def num_steps(self) -> int:
        """All that came: the number that the next step gets."""
        return self._first + len(self._steps)

    @property
    def num_bytes(self) -> int:
        """What the steps take here."""
        return self._num_bytes

    @property
    def request_ids(self) -> list[str]:
        return list(self._requests)

    def has_request(self, request_id: str) -> bool:
        return request_id in self._requests

    def request(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    def add_request(self, request: Request) -> None:
        with self._lock:
            self._requests[request.request_id] = request

    def add_step(self, encoded: bytes, decoded: Step | None = None) -> None:
        """One step as it came; `decoded` spares those who follow the engine to decode it once more."""
        with self._lock:
            self._steps.append(encoded)
            if decoded is not None:
                self._decoded.append(decoded)
            else:
                self._decoded.clear()
            self._num_bytes += len(encoded)
        if self._num_bytes > self._max_bytes:
            self._fold_oldest()

    def note_death(self, text: str) -> None:
        """No step will follow."""
        self._death = text

    def slice(self, first: int = 0, end: int | None = None, own: Collection[str] = ()) -> Trace:
        """The trace of the steps first..end-1, with every request that appears in it, and those of `own`.

        Steps that were folded away are missing: then it starts later.
        """
        with self._lock:
            first = max(first, self._first)
            end = self.num_steps if end is None else max(first, min(end, self.num_steps))
            encoded = self._steps[first - self._first : end - self._first]
            requests = dict(self._requests)
            is_newest = end == self.num_steps
            known, between = self._before(first)
            ended_before = set(self._ended)
        steps = tuple(decode_step(content) for content in encoded)
        kv_at_start = _fold(known, between)
        self._remember(first, kv_at_start)
        seen = _ids_in(steps) | set(own) | _receivers(kv_at_start)
        # those of `own` that arrived at once are in its order, whichever the engine took in first
        in_order = {request_id: requests[request_id] for request_id in own if request_id in requests} | requests
        present = sorted((r for r in in_order.values() if r.request_id in seen), key=lambda r: r.arrival_s)
        ended = {request_id for step in steps for request_id in step.finished} | ended_before
        open_ids = (_alive_ids(steps) | set(own)) - ended
        incidents = self._incidents(steps, present, open_ids, died=self._death is not None and is_newest)
        header = msgspec.structs.replace(self.header, kv_at_start=kv_at_start)
        return Trace(header, tuple(present), steps, incidents)

    def since(self, first: int, end: int | None = None, own: Collection[str] = (), known: Collection[str] = ()) -> News:
        """The steps first..end-1 that are still here, and, by arrival, the requests they schedule and those of `own`.

        For who follows the engine step by step: unlike slice() it does not look at the KV cache, and leaves out the
        requests that are `known`.
        """
        with self._lock:
            first = max(first, self._first)
            end = self.num_steps if end is None else max(first, min(end, self.num_steps))
            decoded_from = self.num_steps - len(self._decoded)
            encoded = self._steps[first - self._first : max(0, min(end, decoded_from) - self._first)]
            newest = list(self._decoded)[max(0, first - decoded_from) : max(0, end - decoded_from)]
        steps = [*map(decode_step, encoded), *newest]
        with self._lock:
            new = self._requests.keys() - known  # mostly nothing: then nobody looks at the steps
            seen = sorted(new & _alive_ids(steps)) if new else ()
            ids = dict.fromkeys([*(i for i in own if i in new), *seen])  # in the order of `own` when they came at once
            requests = [self._requests[i] for i in ids]
        return News(sorted(requests, key=lambda r: r.arrival_s), steps, end)

    def opening(self, first: int, own: Collection[str] = ()) -> tuple[Trace, int]:
        """slice() of no steps yet, and the number of the first to come: `first`, or the oldest that is still here."""
        with self._lock:
            first = max(first, self._first)
        return self.slice(first, first, own), first

    def _incidents(
        self, steps: tuple[Step, ...], present: list[Request], open_ids: set[str], *, died: bool
    ) -> tuple[Incident, ...]:
        """What the slice does not show the end of."""
        if not open_ids and not died:
            return ()
        t_s = max([step.t_s for step in steps[-1:]] + [r.arrival_s for r in present[-1:]], default=0.0)
        kind: Literal["died", "cut"] = "died" if died else "cut"
        text = (self._death or "") if died else "they go on after this trace"
        ids = tuple(r.request_id for r in present if r.request_id in open_ids)
        return (Incident(incident=kind, t_s=t_s, requests=ids, text=text),)

    def _before(self, number: int) -> tuple[KvDelta | None, list[bytes]]:
        """The nearest known state of the KV cache before a step, and the steps from there on. Call with the lock."""
        known = max(n for n in self._kv_before if n <= number)
        return self._kv_before[known], self._steps[known - self._first : number - self._first]

    def _remember(self, number: int, kv: KvDelta | None) -> None:
        with self._lock:
            if number >= self._first:
                self._kv_before[number] = kv
            if len(self._kv_before) > MAX_SNAPSHOTS:
                del self._kv_before[min(n for n in self._kv_before if n > self._first)]

    def _fold_oldest(self) -> None:
        """The oldest steps become one state of the KV cache; requests that ended in them are forgotten."""
        num_folded = max(1, len(self._steps) // FOLD_SHARE)
        with self._lock:
            folded, first = self._steps[:num_folded], self._first + num_folded
            known, between = self._before(first)
        snapshot = _fold(known, between)
        ended = self._ended | {request_id for content in folded for request_id in decode_step(content).finished}
        with self._lock:
            del self._steps[:num_folded]
            self._first = first
            self._num_bytes -= sum(map(len, folded))
            self._kv_before = {n: kv for n, kv in self._kv_before.items() if n > first} | {first: snapshot}
            self._ended = ended & _receivers(snapshot)
            for request_id in ended - self._ended:
                self._requests.pop(request_id, None)


def _fold(start: KvDelta | None, encoded: Sequence[bytes]) -> KvDelta | None:
    """The KV cache after these steps; None when the engine shows none."""
    if not encoded:
        return start
    cells, blocks = CellState(), BlockState()
    last: KvDelta | None = None
    for delta in (start, *(decode_step(content).kv for content in encoded)):
        last = delta or last
        if isinstance(delta, CellDelta):
            cells.apply(delta)
        elif delta is not None:
            blocks.apply(delta)
    if isinstance(last, CellDelta):
        return cells.snapshot(last.num_cells)
    return blocks.snapshot(last.num_blocks) if last is not None else None


def _alive_ids(steps: Iterable[Step]) -> set[str]:
    """Requests that run or wait in these steps."""
    ids: set[str] = set()
    for step in steps:
        ids.update([share.request_id for share in step.scheduled])
        ids.update(step.waiting, step.preempted)
    return ids


def _ids_in(steps: tuple[Step, ...]) -> set[str]:
    """Every request that these steps name."""
    ids = _alive_ids(steps)
    for step in steps:
        ids.update(step.finished, _receivers(step.kv))
        if step.kv is not None:
            ids.update(step.kv.freed)
    return ids


def _receivers(kv: KvDelta | None) -> set[str]:
    return kv.receivers if kv is not None else set()
