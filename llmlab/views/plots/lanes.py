"""Lanes: what each request did when, in seconds, as pieces of one line. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llmlab.trace import Trace
from llmlab.trace.times import start_s

Kind = Literal["waiting", "prefill", "decode", "recompute"]


@dataclass(slots=True)
class Piece:
    """From one moment to another; seconds since the first request was sent."""

    kind: Kind
    start_s: float
    end_s: float


@dataclass(slots=True)
class Lane:
    """One request, from its arrival on."""

    pieces: list[Piece] = field(default_factory=list)
    preempted_s: list[float] = field(default_factory=list)
    # It has nothing to do before: from here on it waits.
    free_s: float = 0.0

    def did(self, kind: Kind, begun_s: float, ended_s: float) -> None:
        """It waited until a step began, and took part in it."""
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.kind == kind and begun_s <= last.end_s:
            last.end_s = self.free_s = ended_s
            return
        if begun_s > self.free_s:
            self.pieces.append(Piece("waiting", self.free_s, begun_s))
        self.pieces.append(Piece(kind, begun_s, ended_s))
        self.free_s = ended_s


def lanes(trace: Trace) -> dict[str, Lane]:
    """request_id -> its lane, in order of arrival.

    >>> from llmlab.trace.example import two_requests
    >>> [(p.kind, p.start_s, p.end_s) for p in lanes(two_requests())["b"].pieces]
    [('waiting', 0.5, 1.0), ('prefill', 1.0, 2.0), ('decode', 2.0, 4.0)]
    """
    first_s = min((r.arrival_s for r in trace.request_records), default=0.0)
    found = {r.request_id: Lane(free_s=r.arrival_s - first_s) for r in trace.request_records}
    before_s: dict[object, float] = {}  # end of the step before, of each worker
    for step in trace.step_records:
        worker, ended_s = step.extra.get("worker"), step.t_s - first_s
        begun = start_s(step)
        begun_s = max(before_s.get(worker, 0.0), ended_s if begun is None else begun - first_s)
        if begun is None:
            begun_s = before_s.get(worker, 0.0)
        before_s[worker] = ended_s
        for request_id in step.preempted:
            if request_id in found:
                found[request_id].preempted_s.append(begun_s)
        for row in step.scheduled:
            if row.request_id in found:
                lane = found[row.request_id]
                lane.did(row.phase, max(begun_s, lane.free_s), ended_s)
    return found
