"""Traces as Chrome trace JSON, to open in ui.perfetto.dev or chrome://tracing: where the time of each request went.

A process for each engine: its steps, counters, and a track for each request. Nothing is computed that the trace does
not say. This file must not know engines or pictures.

Source: Trace Event Format, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from llmlab.trace import jsonl, times
from llmlab.trace.perfetto_tracks import Event, RequestTrack, TimedStep, Track
from llmlab.trace.records import BlockDelta, CellDelta, Step

if TYPE_CHECKING:
    from llmlab.trace.recording import Trace


def write(traces: Trace | Sequence[Trace], path: str | Path) -> Path:
    """Write the file (gzip by the suffix .gz; both viewers read that too). It appears whole or not at all.

    Several traces become several processes on one clock, so that two engines can be held against each other.

    Raises: TraceError when it cannot be written.
    """
    told = events(traces if isinstance(traces, Sequence) else [traces])

    def write_events(file: BinaryIO) -> None:
        file.write(b'{"displayTimeUnit": "ms", "traceEvents": [\n')
        for number, event in enumerate(told):
            # Not in ASCII: Perfetto 52 does not read \u escapes in names. Half a character becomes "?".
            line = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
            file.write(b",\n" + line if number else line)
        file.write(b"\n]}\n")

    return jsonl.write_whole(Path(path), write_events)


def events(traces: Sequence[Trace]) -> list[Event]:
    """All events: first the names of processes and tracks, then everything in order of time.

    >>> from llmlab.trace.example import two_requests
    >>> told = events([two_requests()])
    >>> [(e["name"], e["ts"], e["dur"]) for e in told if e["ph"] == "X" and e["tid"] == 3]  # request a
    [('prefill 5', 0, 1000000), ('decode 2', 1000000, 3000000)]
    """
    names: list[Event] = []
    told: list[Event] = []
    tids = itertools.count(1)
    for pid, (trace, shift_s) in enumerate(zip(traces, _shifts_s(traces), strict=True), start=1):
        process = _Process(trace, shift_s, pid, tids)
        names += process.names()
        told += process.events()
    return names + sorted(told, key=_order)


def _order(event: Event) -> tuple[int, bool, int]:
    """By time; a slice stands before what it encloses, and after one without length that only touches it."""
    duration_us = event.get("dur", 0)
    return event["ts"], duration_us > 0, -duration_us


class _Process:
    """One trace: the steps on two tracks, since one may be scheduled before the last has ended, then the requests."""

    def __init__(self, trace: Trace, shift_s: float, pid: int, tids: Iterator[int]) -> None:
        self._trace, self._shift_s = trace, shift_s
        self._lanes = Track(pid, next(tids)), Track(pid, next(tids))
        self._steps = list(self._timed())
        self._tracks = {request_id: Track(pid, next(tids)) for request_id in self._request_ids()}

    def names(self) -> Iterator[Event]:
        header, first = self._trace.header, self._lanes[0]
        about = (header.model, header.quant or header.dtype, header.device, header.source)
        name = f"{header.engine} {header.engine_version}".rstrip()
        yield first.told("process_name", name=" · ".join([name, *filter(None, about)]))
        yield first.told("process_sort_index", sort_index=first.pid)
        lanes = zip(("steps", "steps, overlapping"), self._lanes, strict=True)
        for name, track in (*lanes, *self._tracks.items()):
            yield track.told("thread_name", name=name)
            yield track.told("thread_sort_index", sort_index=track.tid)

    def events(self) -> Iterator[Event]:
        yield from self._step_events()
        yield from self._counters()
        yield from self._request_events()
        for incident in self._trace.incidents:
            yield self._lanes[0].mark(incident.incident, self._us(incident.t_s), "p", text=incident.text)

    # ---- steps

    def _timed(self) -> Iterator[TimedStep]:
        end_us: int | None = None
        for number, step in enumerate(self._trace.step_records):
            before_us, end_us = end_us, max(self._us(step.t_s), end_us or 0)
            start_s = times.start_s(step)
            start_us = None if start_s is None else min(self._us(start_s), end_us)
            known = [us for us in (start_us, before_us) if us is not None]
            yield TimedStep(step, number, start_us, max(known, default=end_us), end_us)

    def _step_events(self) -> Iterator[Event]:
        free_at_us = [0, 0]  # for each lane
        for timed in self._steps:
            step, start_us = timed.step, timed.start_us
            args: dict[str, Any] = {"num_requests": len(step.scheduled), "num_tokens": step.num_scheduled_tokens}
            if start_us is None:
                yield self._lanes[0].mark(f"step {step.step}", timed.end_us, **args)
                continue
            lane = 0 if free_at_us[0] <= start_us else 1
            # Three steps at once are more than vLLM does; the third is drawn from where there is room.
            start_us = max(start_us, free_at_us[lane])
            free_at_us[lane] = max(timed.end_us, start_us)
            yield self._lanes[lane].slice(f"step {step.step}", start_us, timed.end_us, **args)
            yield from _phases(step, self._lanes[lane], start_us, timed.end_us)

    def _counters(self) -> Iterator[Event]:
        track = self._lanes[0]
        for timed, is_idle in zip(self._steps, times.nobody_left(self._trace.step_records), strict=True):
            step = timed.step
            yield track.counter("batch size", timed.begin_us, sequences=len(step.scheduled))
            yield track.counter("tokens per step", timed.begin_us, scheduled=step.num_scheduled_tokens)
            yield track.counter("requests", timed.begin_us, waiting=step.num_waiting)
            if isinstance(step.kv, BlockDelta):
                yield track.counter("KV used", timed.end_us, blocks=step.kv.num_blocks - step.kv.num_free)
            elif isinstance(step.kv, CellDelta):
                yield track.counter("KV used", timed.end_us, cells=step.kv.num_used)
            if is_idle:
                yield track.counter("batch size", timed.end_us, sequences=0)
                yield track.counter("tokens per step", timed.end_us, scheduled=0)

    # ---- requests

    def _request_ids(self) -> Iterable[str]:
        """Those with a record, in order of arrival, then those that were there before the trace began."""
        told = dict.fromkeys(times.request_times(self._trace))
        for timed in self._steps:
            told |= dict.fromkeys(row.request_id for row in timed.step.scheduled)
        return told

    def _request_events(self) -> Iterator[Event]:
        sent_us = {r.request_id: self._us(r.arrival_s) for r in self._trace.request_records}
        tracks = {r: RequestTrack(track, sent_us.get(r)) for r, track in self._tracks.items()}
        for timed in self._steps:
            step = timed.step
            texts: dict[str, list[str]] = {}
            for token in step.tokens:
                texts.setdefault(token.request_id, []).append(token.text)
            for request_id in step.preempted:
                if request_id in tracks:
                    tracks[request_id].preempted(timed)
            for row in step.scheduled:
                tracks[row.request_id].computed(row, timed, texts.get(row.request_id, []))
            for request_id, reason in step.finished.items():
                if request_id in tracks:
                    tracks[request_id].finished(reason, timed)
        for track in tracks.values():
            track.close(self._end_us())
            yield from track.events

    def _end_us(self) -> int:
        ends_us = [self._us(incident.t_s) for incident in self._trace.incidents]
        return max([*ends_us, *(timed.end_us for timed in self._steps[-1:])], default=0)

    def _us(self, t_s: float) -> int:
        return round(1e6 * (t_s + self._shift_s))


def _phases(step: Step, lane: Track, start_us: int, end_us: int) -> Iterator[Event]:
    """The parts of a step; schedule begins it, update ends it, the forward pass fills what is between."""
    schedule_us = min(start_us + round(1e6 * (step.schedule_s or 0.0)), end_us)
    update_us = max(end_us - round(1e6 * (step.update_s or 0.0)), schedule_us)
    parts = (("schedule", start_us, schedule_us), ("forward", schedule_us, update_us), ("update", update_us, end_us))
    return (lane.slice(name, begin, end) for name, begin, end in parts if begin < end)


def _shifts_s(traces: Sequence[Trace]) -> list[float]:
    """What to add to the times of each trace: one clock if all say when they began, and nothing before 0."""
    began_s = [trace.header.started_at for trace in traces]
    known_s = [began for began in began_s if began is not None]
    apart_s = [began - min(known_s) for began in known_s] if len(known_s) == len(traces) else [0.0] * len(traces)
    firsts_s = [t_s + apart for trace, apart in zip(traces, apart_s, strict=True) for t_s in _first_times_s(trace)]
    return [apart - min(0.0, *firsts_s) for apart in apart_s] if firsts_s else apart_s


def _first_times_s(trace: Trace) -> Iterator[float]:
    yield from (request.arrival_s for request in trace.request_records[:1])
    yield from (start_s for step in trace.step_records[:1] if (start_s := times.start_s(step)) is not None)
