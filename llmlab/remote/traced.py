"""TracedHandle: a connected server whose steps are seen too. Answers come as they do from any server; the trace comes
beside them, from the server itself, with what other clients ask in it.

This file must not know HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any
from weakref import WeakSet

import msgspec

from llmlab.engines.base import EngineConfig
from llmlab.engines.connection import Connection
from llmlab.engines.handle import RunT
from llmlab.engines.messages import Prompt, Ready
from llmlab.engines.recorder import News
from llmlab.engines.run import Run
from llmlab.remote.clock import Clock
from llmlab.remote.following import Following
from llmlab.remote.handle import RemoteHandle
from llmlab.remote.seen import Seen
from llmlab.remote.segments import Gap, Segments
from llmlab.remote.trace_client import TraceClient
from llmlab.remote.words import Words
from llmlab.trace import Request, Step, Trace
from llmlab.trace.whose import is_other

# How long a run that has ended waits for the steps that tell its end: they come a little later than the answer.
SETTLE_S = 2.0


class TracedHandle(RemoteHandle):
    """Made by llmlab.connect(url, trace=...). `trace` is what the server did since then, all clients' requests in it.

    Times of the trace are the server's: t_s counts from its own start; `clock` says when that was here, and how well
    that is known. What the notebook measured is in the results. After a drop the trace begins anew: `gaps`, `traces`.
    """

    def __init__(
        self, name: str, config: EngineConfig, connection: Connection, ready: Ready, seen: Seen, client: TraceClient
    ) -> None:
        super().__init__(name, config, connection, ready)
        self._seen, self._client = seen, client
        self._settled: WeakSet[Run] = WeakSet()
        self._words = Words()
        self._following: Following | None = None

    # ---- what is new

    @property
    def clock(self) -> Clock:
        """The server's clock against that of this machine, as it was measured when the stream began last."""
        return self._seen.clock

    @property
    def epoch_s(self) -> float:
        return self._seen.clock.epoch_s

    @property
    def is_seen(self) -> bool:
        """Steps come now."""
        return self._segments.is_open and not self.is_unloaded

    @property
    def gaps(self) -> list[Gap]:
        """What was not seen since the connection was made, as far as traces are kept."""
        return self._segments.gaps

    @property
    def traces(self) -> list[Trace]:
        """The trace before each gap, and the one that is coming in; the newest few."""
        return self._segments.traces()

    @property
    def following(self) -> Following:
        """All that the server does, as a run that ends when it is stopped: what watch(handle) shows."""
        if self._following is None or self._following.done:
            self._following = Following(self)
        return self._following

    @property
    def shown(self) -> Run | Trace:
        return self.following if self.is_seen else self.trace

    @property
    def segments(self) -> Segments:
        return self._segments

    # ---- what every handle has, of the server's trace

    @property
    def _segments(self) -> Segments:
        return self._seen.segments

    @property
    def trace(self) -> Trace:
        if self._last is not None:
            self._settle(self._last)
        segments = self._segments
        return self._completed(segments.slice(segments.base))

    def trace_of(self, runs: Collection[Run]) -> Trace:
        """What the server did from the arrival of the first of these runs to the end of the last."""
        for run in runs:
            self._settle(run)
        segments, ids = self._segments, [request_id for run in runs for request_id in run.request_ids]
        began = [number for i in ids if (number := segments.began(i)) is not None]
        ends = [self._end_of(run) for run in runs]
        end = None if None in ends else max(filter(None, ends), default=None)
        return self._completed(segments.slice(min(began, default=segments.num_steps), end, ids))

    def opening_of(self, run: Run) -> tuple[Trace, int]:
        segments = self._segments
        began = [number for i in run.request_ids if (number := segments.began(i)) is not None]
        return segments.opening(min(began, default=segments.num_steps), run.request_ids)

    def news_of(self, run: Run, number: int, known: Collection[str] = ()) -> News:
        self._settle(run)
        return self._named(self._segments.since(number, self._end_of(run), run.request_ids, known))

    def opening(self, own: Collection[str] = ()) -> tuple[Trace, int]:
        return self._segments.opening(self._segments.num_steps, own)

    def steps_since(self, number: int, known: Collection[str] = ()) -> News:
        return self._named(self._segments.since(number, known=known))

    @property
    def last_step(self) -> Step | None:
        return self._segments.last_step

    def note_of(self, run: Run) -> str:
        """What a view of a run says beside it."""
        if self.is_seen or self.is_unloaded or run.done:
            return ""
        return f"No step is seen: {self._segments.why_ended}. Trying again."

    def is_cut(self, run: Run) -> bool:
        """The trace broke off before this run, which has ended, did."""
        return any(self._segments.is_cut(request_id) for request_id in run.request_ids)

    def close(self, grace_s: float) -> None:
        self._client.close()
        self._segments.break_off("the connection was closed here")
        super().close(grace_s)

    def __repr__(self) -> str:
        told = super().__repr__()
        if not self.alive:
            return told
        num_gaps = len(self.gaps)
        state = "traced" if self.is_seen else f"its trace broke off: {self._segments.why_ended}"
        gaps = f", {num_gaps} gap{'' if num_gaps == 1 else 's'}" if num_gaps else ""
        return f"{told[:-1]}, {state}{gaps})"

    # ---- parts

    def _settle(self, run: Run) -> None:
        """Wait, once and not long, for the steps that tell the end of a run that has ended here."""
        if not run.done or run in self._settled:
            return
        segments, deadline_s = self._segments, time.monotonic() + SETTLE_S
        # The trace is in another thread, and polls: there is no bell to wait for.
        while segments.is_open and self._end_of(run) is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._settled.add(run)

    def _end_of(self, run: Run) -> int | None:
        """The number of steps after which all of it has ended; None while some goes on, or was not seen to end."""
        if not run.done:
            return None
        # what the server refused never came to its engine
        accepted = [i for i in run.request_ids if self._connection.recorder.request(i) is not None]
        ends = [self._segments.ended(request_id) for request_id in accepted]
        return None if None in ends else max(filter(None, ends), default=self._segments.num_steps)

    def _submit(self, kind: type[RunT], prompts: list[Prompt]) -> RunT:
        run = super()._submit(kind, prompts)
        self._words.note(run)
        return run

    def _named(self, news: News) -> News:
        """With our prompts, and the texts of our tokens; steps whose texts are on their way come with the next news."""
        steps = self._words.in_time(news.steps, self.epoch_s)
        num_late = len(news.steps) - len(steps)
        return News([self._own(request) for request in news.requests], steps, news.next_step - num_late)

    def _own(self, request: Request) -> Request:
        """The server's record of a request of ours, with what only the notebook knows of it."""
        ours = None if is_other(request) else self._connection.recorder.request(request.request_id)
        if ours is None:
            return request
        text, user = request.prompt_text or ours.prompt_text, request.user or ours.user
        sent_s = round(ours.arrival_s + self._arrivals_from_s(), 6)
        extra: dict[str, Any] = {**request.extra, **ours.extra, "sent_s": sent_s}
        return msgspec.structs.replace(request, prompt_text=text, user=user, extra=extra)

    def _arrivals_from_s(self) -> float:
        """t_s of the trace at which the connection's own clock began, by which it counts what arrives."""
        ready = self._connection.ready
        return ready.epoch_s - self.clock.epoch_s if ready is not None else 0.0

    def _completed(self, trace: Trace) -> Trace:
        """With our prompts, and the texts of our tokens."""
        requests = tuple(self._own(request) for request in trace.request_records)
        steps = tuple(self._words.told(step) for step in trace.step_records)
        return Trace(trace.header, requests, steps, trace.incidents)
