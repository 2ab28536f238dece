"""Segments: a server's trace as it was seen from here, with the gaps in it.

Where the stream breaks off, or records are dropped, nobody knows what happened: what comes next is a trace of its own,
which begins with the KV cache as it is then. No trace reaches over a gap. This file must not know sockets, or whose a
request is.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import msgspec

from llmlab.engines.messages import encode
from llmlab.engines.recorder import News, Recorder
from llmlab.trace import Header, Incident, Request, Step, Trace
from llmlab.trace.lines import Line

MAX_SEGMENTS = 4  # that are kept


@dataclass(frozen=True, slots=True)
class Gap:
    """What was not seen. Steps are told by the engine's numbers."""

    # the last step that came before it, and the first after it; None: there is none (yet)
    after_step: int | None
    before_step: int | None
    why: str
    # records that the server dropped, as it says; None: it does not
    num_lost_records: int | None = None

    def __str__(self) -> str:
        after = f"after step {self.after_step}" if self.after_step is not None else "at its beginning"
        on = f"from step {self.before_step} on" if self.before_step is not None else "nothing yet"
        return f"The trace broke off {after} ({self.why}); seen again: {on}."


@dataclass(slots=True)
class _Segment:
    """Steps without a gap. `base`: the number of its first step among all that came."""

    base: int
    recorder: Recorder
    why: str | None = None  # it ended
    first_step: int | None = None
    last_step: int | None = None
    num_lost_records: int | None = None
    incidents: list[Incident] = field(default_factory=list)
    # request_id -> number of the step before which its record came, and after which it had ended
    began: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.base + self.recorder.num_steps


class Segments:
    """Like one Recorder, numbered through. One thread adds, any thread reads."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._lock = threading.Lock()
        self.num_begun = 0

    # ---- for the thread that adds

    def begin(self, header: Header, why: str) -> None:
        """A new trace; `why`: what ended the one before it, if nothing else had."""
        self.break_off(why)
        # A number between two segments: who asks what follows the end of one never gets steps of the next.
        base = self._segments[-1].end + 1 if self._segments else 0
        lost = header.extra.get("num_lost_records")
        segment = _Segment(base, Recorder(header), num_lost_records=lost if isinstance(lost, int) else None)
        with self._lock:
            kept = [s for s in self._segments if s.recorder.num_steps]
            self._segments = [*kept[1 - MAX_SEGMENTS :], segment]
            self.num_begun += 1

    def break_off(self, why: str) -> None:
        if self._segments and self._segments[-1].why is None:
            self._segments[-1].why = why

    def add(self, record: Line) -> None:
        segment = self._segments[-1]
        if isinstance(record, Request):
            segment.recorder.add_request(record)
            segment.began.setdefault(record.request_id, segment.end)
        elif isinstance(record, Step):
            segment.first_step = record.step if segment.first_step is None else segment.first_step
            segment.last_step = record.step
            segment.recorder.add_step(encode(record), record)
            segment.ended.update(dict.fromkeys(record.finished, segment.end))
        elif isinstance(record, Incident):
            segment.incidents.append(record)

    # ---- for any thread

    @property
    def header(self) -> Header:
        return self._segments[-1].recorder.header

    @property
    def is_open(self) -> bool:
        """Steps come."""
        return bool(self._segments) and self._segments[-1].why is None

    @property
    def why_ended(self) -> str | None:
        return self._segments[-1].why if self._segments else None

    @property
    def num_steps(self) -> int:
        return self._segments[-1].end if self._segments else 0

    @property
    def base(self) -> int:
        """The number of the first step of the segment that is coming in."""
        return self._segments[-1].base if self._segments else 0

    @property
    def last_step(self) -> Step | None:
        return next(iter(self.since(self.num_steps - 1).steps), None)

    @property
    def gaps(self) -> list[Gap]:
        """Those after segments that are kept; the last one may not have ended."""
        found = []
        kept = list(self._segments)
        for before, after in zip(kept, [*kept[1:], None], strict=True):
            if before.why is not None:
                lost = after.num_lost_records if after is not None else None
                found.append(Gap(before.last_step, after.first_step if after else None, before.why, lost))
        return found

    def traces(self) -> list[Trace]:
        """One for each segment that is kept, the oldest first."""
        return [self.slice(segment.base, segment.end) for segment in list(self._segments)]

    def began(self, request_id: str) -> int | None:
        return self._newest("began", request_id)

    def ended(self, request_id: str) -> int | None:
        return self._newest("ended", request_id)

    def is_cut(self, request_id: str) -> bool:
        """A gap came before its end."""
        return any(
            request_id in segment.began and request_id not in segment.ended and segment.why is not None
            for segment in list(self._segments)
        )

    def _newest(self, what: str, request_id: str) -> int | None:
        for segment in reversed(self._segments):
            if (number := getattr(segment, what).get(request_id)) is not None:
                return int(number)
        return None

    def slice(self, first: int, end: int | None = None, own: Collection[str] = ()) -> Trace:
        """The trace of the steps first..end-1, of one segment: that of `first`."""
        segment = self._of(first)
        last = segment.end if end is None else min(max(end, segment.base), segment.end)
        here = [request_id for request_id in own if request_id in segment.began]
        trace = segment.recorder.slice(max(0, first - segment.base), last - segment.base, here)
        if segment.why is None or last < segment.end:
            return trace
        return replace(trace, incidents=self._broken_off(segment, trace))

    def since(
        self, number: int, end: int | None = None, own: Collection[str] = (), known: Collection[str] = ()
    ) -> News:
        """See Recorder.since(); never steps of the segment after that of `number`."""
        segment = self._of(number)
        last = None if end is None else max(0, end - segment.base)
        news = segment.recorder.since(max(0, number - segment.base), last, own, known)
        return News(news.requests, news.steps, max(number, segment.base + news.next_step))

    def opening(self, first: int, own: Collection[str] = ()) -> tuple[Trace, int]:
        segment = self._of(first)
        here = [request_id for request_id in own if request_id in segment.began]
        trace, number = segment.recorder.opening(max(0, min(first, segment.end) - segment.base), here)
        return trace, segment.base + number

    def _of(self, number: int) -> _Segment:
        with self._lock:
            return next((s for s in reversed(self._segments) if s.base <= number), self._segments[0])

    def _broken_off(self, segment: _Segment, trace: Trace) -> tuple[Incident, ...]:
        told = segment.incidents[-1:]
        open_ids = tuple(request_id for incident in trace.incidents for request_id in incident.requests)
        t_s = max([step.t_s for step in trace.step_records[-1:]], default=0.0)
        if told:
            return (msgspec.structs.replace(told[0], requests=open_ids),)
        text = f"the trace broke off there ({segment.why})"
        return (Incident(incident="cut", t_s=t_s, requests=open_ids, text=text),)
