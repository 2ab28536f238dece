"""One request as slices and marks on a track of its own, for perfetto.py; and the events that such a file is made of.

Times are whole microseconds, so that one slice begins exactly where another ends. This file must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmlab.trace.records import ScheduledRequest, Step

Event = dict[str, Any]

# Names that chrome://tracing has colours for; Perfetto goes by the name of a slice, without its digits.
COLOURS = {
    "waiting": "grey",
    "waiting after preemption": "bad",
    "prefill": "thread_state_runnable",
    "decode": "thread_state_running",
    "recompute": "terrible",
}


@dataclass(frozen=True, slots=True)
class Track:
    """Where an event stands: pid is an engine, tid one line of it."""

    pid: int
    tid: int

    def slice(self, name: str, begin_us: int, end_us: int, colour: str | None = None, **args: object) -> Event:
        event: Event = {"name": name, "ph": "X", "ts": begin_us, "dur": end_us - begin_us, "args": args}
        return event | self._place() | ({"cname": COLOURS[colour]} if colour else {})

    def mark(self, name: str, at_us: int, scope: str = "t", **args: object) -> Event:
        """`scope`: "t" marks this track, "p" the whole engine."""
        return {"name": name, "ph": "i", "ts": at_us, "s": scope, "args": args} | self._place()

    def counter(self, name: str, at_us: int, **series: int) -> Event:
        return {"name": name, "ph": "C", "ts": at_us, "args": series} | self._place()

    def told(self, what: str, /, **args: object) -> Event:
        """What the viewer is to know of this track: "thread_name", "process_name", ..."""
        return {"name": what, "ph": "M", "args": args} | self._place()

    def _place(self) -> Event:
        return {"pid": self.pid, "tid": self.tid}


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step on the clock of the file."""

    step: Step
    # Place in the trace: one more than that of the step before.
    number: int
    # When its scheduling began; None when it carries no durations.
    start_us: int | None
    # From when it is drawn on the tracks of its requests: the end of the step before, if that came later.
    begin_us: int
    end_us: int


@dataclass(slots=True)
class _DecodeRun:
    """Decode steps that follow each other."""

    begin_us: int
    end_us: int
    first: Step
    last_number: int
    last_step: int
    num_tokens: int = 0
    text: str = ""


class RequestTrack:
    """Follows one request through the steps. `sent_us`: None for one that was there before the trace began."""

    def __init__(self, track: Track, sent_us: int | None) -> None:
        self.events: list[Event] = []
        self._track = track
        self._sent_us = self._waiting_since_us = sent_us
        self._waiting = "waiting"
        self._run: _DecodeRun | None = None

    def preempted(self, timed: TimedStep) -> None:
        self._end_run()
        self.events.append(self._track.mark("preempted", timed.begin_us, step=timed.step.step))
        self._waiting, self._waiting_since_us = "waiting after preemption", timed.begin_us

    def computed(self, row: ScheduledRequest, timed: TimedStep, texts: list[str]) -> None:
        """It had a share in a step, and tokens with these texts came out."""
        begin_us = min(max(timed.begin_us, self._sent_us or timed.begin_us), timed.end_us)
        num_found = timed.step.prefix_hits.get(row.request_id, 0)
        self._end_waiting(row, begin_us, num_found)
        if num_found:
            self.events.append(self._track.mark(f"prefix hit: {num_found} tokens", begin_us, num_tokens=num_found))
        if row.phase == "decode":
            self._decode(timed, begin_us, texts)
            return
        self._end_run()
        self.events.append(
            self._track.slice(
                f"{row.phase} {row.num_tokens}",
                begin_us,
                timed.end_us,
                row.phase,
                step=timed.step.step,
                num_tokens=row.num_tokens,
                num_computed_tokens=row.num_computed_tokens,
                num_prompt_tokens=row.num_prompt_tokens,
                text="".join(texts),
            )
        )

    def finished(self, reason: str, timed: TimedStep) -> None:
        self._end_run()
        self._still_waiting(timed.end_us)
        self.events.append(self._track.mark(f"finished: {reason}", timed.end_us, step=timed.step.step))

    def close(self, end_us: int) -> None:
        """The trace ends at `end_us`."""
        self._end_run()
        self._still_waiting(end_us)

    def _decode(self, timed: TimedStep, begin_us: int, texts: list[str]) -> None:
        if self._run is None or self._run.last_number != timed.number - 1:
            self._end_run()
            self._run = _DecodeRun(begin_us, timed.end_us, timed.step, timed.number, timed.step.step)
        run = self._run
        run.end_us, run.last_number, run.last_step = timed.end_us, timed.number, timed.step.step
        run.num_tokens += len(texts)
        run.text += "".join(texts)

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            args = {"first_step": run.first.step, "last_step": run.last_step, "num_tokens": run.num_tokens}
            name = f"decode {run.num_tokens}"
            self.events.append(self._track.slice(name, run.begin_us, run.end_us, "decode", **args, text=run.text))

    def _end_waiting(self, row: ScheduledRequest, begin_us: int, num_found: int) -> None:
        # Else it ran already when the trace begins: how long it had waited is not known.
        is_admission = row.num_computed_tokens == num_found and not row.num_output_tokens
        if is_admission or self._waiting != "waiting":
            self._still_waiting(begin_us)
        self._waiting_since_us = None

    def _still_waiting(self, end_us: int) -> None:
        since_us, self._waiting_since_us = self._waiting_since_us, None
        if since_us is not None and since_us < end_us:
            self.events.append(self._track.slice(self._waiting, since_us, end_us, self._waiting))
