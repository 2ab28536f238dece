"""Recorded steps for a replay: with other names, of one request alone, and when each is due.

This file must not know engines or clocks: times are offsets from the start of a play.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmlab.trace import BlockDelta, CellDelta, FinishReason, Request, Step, Trace
from llmlab.trace.records import KvDelta

# A trace may begin long after its first request arrived: a play does not wait that long.
MAX_LEAD_S = 1.0


@dataclass(slots=True)
class Play:
    """Steps to be played again, and the requests that they end."""

    steps: Sequence[Step]
    # in seconds after the start of the play, one for each step
    due_s: Sequence[float]
    # request_id -> in seconds after the start of the play
    arrivals_s: Mapping[str, float]
    # ends that the recorded steps do not show: the trace was cut, or the engine died
    missing_ends: Mapping[str, FinishReason]
    next: int = 0

    @property
    def is_over(self) -> bool:
        return self.next >= len(self.steps)


def whole(trace: Trace, names: Mapping[str, str]) -> Play:
    """All that a trace tells, under new names."""
    steps = [renamed(step, names) for step in trace.step_records]
    played = played_ids(trace)
    requests = [r for r in trace.request_records if r.request_id in played]
    ends = {names[r]: reason for r, reason in missing_ends(trace, names).items()}
    return _play(steps, {names[r.request_id]: r for r in requests}, ends)


def alone(trace: Trace, request: Request, name: str) -> Play:
    """What the steps tell of one request. No KV: the others, which shared the cache, are not played."""
    own = (_share_of(request.request_id, step) for step in trace.step_records)
    steps = [renamed(step, {request.request_id: name}) for step in own if step is not None]
    end = missing_ends(trace, [request.request_id]).get(request.request_id)
    return _play(steps, {name: request}, {name: end} if end else {})


def _play(steps: Sequence[Step], requests: Mapping[str, Request], ends: Mapping[str, FinishReason]) -> Play:
    first_s = steps[0].t_s - _duration_s(steps[0]) if steps else 0.0
    start_s = max(min((r.arrival_s for r in requests.values()), default=first_s), first_s - MAX_LEAD_S)
    due_s = [max(0.0, step.t_s - start_s) for step in steps]
    arrivals_s = {name: max(0.0, request.arrival_s - start_s) for name, request in requests.items()}
    return Play(steps, due_s, arrivals_s, ends)


def played_ids(trace: Trace) -> set[str]:
    """Requests to which something happens in the steps: not those which ended before, and only hold KV."""
    return {request_id for step in trace.step_records for request_id in mentioned(step)}


def mentioned(step: Step) -> set[str]:
    """Requests that run, wait or end in a step."""
    return {row.request_id for row in step.scheduled} | {*step.waiting, *step.preempted, *step.finished}


def missing_ends(trace: Trace, request_ids: Mapping[str, str] | Sequence[str]) -> dict[str, FinishReason]:
    """Requests that no step ends: "error" when the engine died under them, "abort" when the record was cut."""
    ended = {request_id for step in trace.step_records for request_id in step.finished}
    died = {r for incident in trace.incidents if incident.incident == "died" for r in incident.requests}
    return {r: "error" if r in died else "abort" for r in request_ids if r not in ended}


def renamed(step: Step, names: Mapping[str, str]) -> Step:
    """The step with other request ids; ids without a new name keep theirs."""
    replaced: Step = msgspec.structs.replace(
        _with_keys(step, names, "finished", "stopped_by", "prefix_hits"),
        scheduled=tuple(_with_name(row, names) for row in step.scheduled),
        waiting=tuple(names.get(r, r) for r in step.waiting),
        preempted=tuple(names.get(r, r) for r in step.preempted),
        forked={names.get(r, r): names.get(parent, parent) for r, parent in step.forked.items()},
        tokens=tuple(_with_name(token, names) for token in step.tokens),
        kv=renamed_kv(step.kv, names),
    )
    return replaced


def renamed_kv(kv: KvDelta | None, names: Mapping[str, str]) -> KvDelta | None:
    """The delta with other request ids."""
    changed: KvDelta | None = None
    if isinstance(kv, CellDelta):
        changed = _with_keys(kv, names, "written", "shared", "freed")
    elif isinstance(kv, BlockDelta):
        changed = _with_keys(kv, names, "allocated", "freed")
    return changed


def _share_of(request_id: str, step: Step) -> Step | None:
    """The step as if the others had not been there; None when the request is not in it."""
    if request_id not in mentioned(step):
        return None
    rows = tuple(row for row in step.scheduled if row.request_id == request_id)
    is_waiting = request_id in step.waiting
    share: Step = msgspec.structs.replace(
        step,
        scheduled=rows,
        num_scheduled_tokens=sum(row.num_tokens for row in rows),
        waiting=(request_id,) if is_waiting else (),
        num_waiting=int(is_waiting),
        num_running=int(bool(rows)),
        preempted=tuple(r for r in step.preempted if r == request_id),
        finished=_only(request_id, step.finished),
        stopped_by=_only(request_id, step.stopped_by),
        prefix_hits=_only(request_id, step.prefix_hits),
        forked={},
        tokens=tuple(token for token in step.tokens if token.request_id == request_id),
        kv=None,
    )
    return share


def _only(request_id: str, values: dict[str, Any]) -> dict[str, Any]:
    return {r: value for r, value in values.items() if r == request_id}


def _with_keys(record: Any, names: Mapping[str, str], *fields: str) -> Any:
    changed = {field: {names.get(r, r): value for r, value in getattr(record, field).items()} for field in fields}
    return msgspec.structs.replace(record, **changed)


def _with_name(record: Any, names: Mapping[str, str]) -> Any:
    return msgspec.structs.replace(record, request_id=names.get(record.request_id, record.request_id))


def _duration_s(step: Step) -> float:
    return sum(part or 0.0 for part in (step.schedule_s, step.forward_s, step.update_s))
