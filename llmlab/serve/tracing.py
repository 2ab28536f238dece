"""GET /trace: what the engine does while it does it, as the lines of a trace file; GET /trace/clock: its clock.

A stream begins with the header, which has the KV cache as it is then, and goes on with requests and steps as they come.
A second header is a new beginning: what the client was too slow to take is not here any more. An empty line says that
the server is there. What a client may see is for `filter_of` to say.
This file must not know who a client is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from llmlab.engines.handle import EngineHandle
from llmlab.serve.failures import ApiError
from llmlab.serve.responses import as_json
from llmlab.serve.streaming import EventStream
from llmlab.trace import Request, Step, lines
from llmlab.trace.lines import Line

PERIOD_S, IDLE_S = 0.05, 1.0
MAX_STREAMS = 256

# A record on its way to a client -> what goes there in its place; None: nothing does.
Filter = Callable[[Line], Line | None]


class Eye(Protocol):
    """What one client sees, as lines of a trace file."""

    def begin(self) -> bytes: ...

    def news(self) -> bytes:
        """What came since the last call."""

    def end(self) -> bytes:
        """After the engine has ended."""


class Tracing:
    """The routes of the trace of one engine. `filter_of` is asked once for each stream; None: all of it is sent.

    A filter gets every record in the order of the file, the header too, whose `kv_at_start` names requests.
    """

    def __init__(
        self,
        handle: EngineHandle,
        filter_of: Callable[[HttpRequest], Filter | None] | None = None,
        *,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._handle, self._filter_of, self._max_streams = handle, filter_of, max_streams
        self.num_open = 0  # streams
        self._is_stopped = False

    def routes(self) -> list[Route]:
        return [
            Route("/trace", self.trace, methods=["GET"]),
            Route("/trace/clock", self.trace_clock, methods=["GET"]),
        ]

    def stop(self) -> None:
        """End all streams. From any thread."""
        self._is_stopped = True

    async def trace(self, request: HttpRequest) -> Response:
        if request.method == "HEAD":
            return Response(media_type=LineStream.media_type)
        if not self._handle.alive:
            raise ApiError(503, f"{self._handle.name} is not loaded any more: nothing follows.", code="engine_died")
        if self.num_open >= self._max_streams:
            raise ApiError(
                429, f"{self.num_open} clients follow the trace, the limit is {self._max_streams}. Try again later.",
                code="too_many_streams", headers={"Retry-After": "5"},
            )  # fmt: skip
        keep = self._filter_of(request) if self._filter_of is not None else None
        self.num_open += 1
        return LineStream(self._told(_Filtered(self._handle, keep)), self._leave())

    async def trace_clock(self, request: HttpRequest) -> Response:
        """Now, as the steps of the trace count: what a client compares with its own clock."""
        now_s = time.monotonic() - self._handle.epoch_s
        return as_json({"t_s": now_s})

    def _leave(self) -> Callable[[], None]:
        """To be called when a stream has ended, and may be called again."""
        is_open = True

        def leave() -> None:
            nonlocal is_open
            self.num_open -= is_open
            is_open = False

        return leave

    async def _told(self, eye: Eye) -> AsyncIterator[bytes]:
        """All that `eye` sees, until the engine or the server has ended."""
        said_s = time.monotonic()
        yield eye.begin()
        while not self._is_stopped:
            is_alive = self._handle.alive  # first this: what it did before its end has come then
            if content := eye.news():
                yield content
                said_s = time.monotonic()
            elif time.monotonic() - said_s > IDLE_S:
                yield b"\n"
                said_s = time.monotonic()
            if not is_alive:
                yield eye.end()
                return
            await asyncio.sleep(self._period_s())

    def _period_s(self) -> float:
        """Between two looks of one stream."""
        return PERIOD_S


class Followed:
    """An engine, read from now on: every record once, in the order of a trace file."""

    def __init__(self, handle: EngineHandle) -> None:
        self._handle = handle
        self._next_step = 0  # as they came
        self._known: set[str] = set()
        self._open: set[str] = set()

    def begin(self) -> list[Line]:
        """The header, with the KV cache as it is now, and the requests that hold some of it."""
        opening, self._next_step = self._handle.opening()
        self._known = {request.request_id for request in opening.request_records}
        self._open = set()
        return [opening.header, *opening.request_records]

    def news(self) -> list[Line]:
        """What came since the last call; a new beginning where some of it is not here any more."""
        news = self._handle.steps_since(self._next_step, self._known)
        if news.next_step - len(news.steps) > self._next_step:
            return self.begin()
        self._next_step = news.next_step
        self._note(news.requests, news.steps)
        return [*news.requests, *news.steps]

    def end(self) -> list[Line]:
        """After the last step: how it ended, for those that had not."""
        return list(self._handle.opening(own=self._open)[0].incidents)

    def _note(self, requests: Iterable[Request], steps: Iterable[Step]) -> None:
        new = {request.request_id for request in requests}
        self._known |= new
        self._open |= new
        for step in steps:
            self._open.difference_update(step.finished)


class _Filtered:
    """The Eye of a client: an engine, as its filter lets it through."""

    def __init__(self, handle: EngineHandle, keep: Filter | None) -> None:
        self._followed, self._keep = Followed(handle), keep

    def begin(self) -> bytes:
        return self._encoded(self._followed.begin())

    def news(self) -> bytes:
        return self._encoded(self._followed.news())

    def end(self) -> bytes:
        return self._encoded(self._followed.end())

    def _encoded(self, records: Iterable[Line]) -> bytes:
        kept = records if self._keep is None else map(self._keep, records)
        return encoded(record for record in kept if record is not None)


class LineStream(EventStream):
    media_type = "application/jsonl"


def encoded(records: Iterable[Line]) -> bytes:
    return b"".join(lines.encode(record) + b"\n" for record in records)
