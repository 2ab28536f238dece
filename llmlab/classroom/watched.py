"""GET /trace of a class: the shared batch, live, as everybody may see it.

The same route and form as in llmlab.serve: the header with the KV cache as it is, then requests and steps as they come.
Who has a student's token gets his own requests whole and aliases for all others (hiding.py), the lecturer gets all.
"""

from __future__ import annotations

from msgspec.structs import replace
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from llmlab.classroom.frames import Frame, Frames
from llmlab.classroom.hiding import hidden_header, hidden_request
from llmlab.classroom.quotas import Account
from llmlab.engines.handle import EngineHandle
from llmlab.serve.failures import ApiError
from llmlab.serve.tracing import LineStream, Tracing, encoded
from llmlab.trace import Header, Incident, Request
from llmlab.trace.whose import TOLD, WHOSE

# Seconds between two looks of one stream; looks of all streams a second: watching must not hold up the answers.
PERIOD_S, MAX_LOOKS_RPS = 0.1, 500.0
MAX_STREAMS, MAX_STREAMS_OF_ONE = 2000, 4


class Watched(Tracing):
    """The batch of a class. `num_open`: streams."""

    def __init__(self, handle: EngineHandle) -> None:
        super().__init__(handle, max_streams=MAX_STREAMS)
        self._frames = Frames(handle)

    async def trace(self, request: HttpRequest) -> Response:
        if request.method == "HEAD":
            return Response(media_type=LineStream.media_type)
        if not self._handle.alive:
            raise ApiError(503, f"{self._handle.name} is not loaded any more: nothing follows.", code="engine_died")
        account: Account = request.state.who
        if account.num_watching >= MAX_STREAMS_OF_ONE or self.num_open >= self._max_streams:
            raise ApiError(
                429, f"You watch the class {account.num_watching} times already. Close a notebook that does.",
                code="too_many_streams", headers={"Retry-After": "5"},
            )  # fmt: skip
        if not self.num_open:
            self._frames.restart()
        self.num_open += 1
        account.num_watching += 1
        leave_all = self._leave()
        is_open = True

        def leave() -> None:
            nonlocal is_open
            account.num_watching -= is_open
            is_open = False
            leave_all()

        return LineStream(self._told(_Eye(self._handle, self._frames, account)), leave)

    def _period_s(self) -> float:
        return max(PERIOD_S, self.num_open / MAX_LOOKS_RPS)


class _Eye:
    """One stream: how far it is, and what is seen of each record."""

    def __init__(self, handle: EngineHandle, frames: Frames, account: Account) -> None:
        self._handle, self._frames = handle, frames
        self._name, self._sees_all = account.person.name, account.person.is_lecturer
        self._next_step = 0
        self._known: set[str] = set()
        self._open: set[str] = set()

    def begin(self) -> bytes:
        """The header and the requests that hold some of the KV cache now."""
        opening, self._next_step = self._handle.opening()
        ids = {request.request_id for request in opening.request_records}
        self._known, self._open = ids, set()
        return encoded([self._header(opening.header), *map(self._request, opening.request_records)])

    def news(self) -> bytes:
        """What came since; a new beginning for who was too slow."""
        found = self._frames.since(self._next_step)
        if found is None:
            return self.begin()
        frames, self._next_step = found
        return b"".join(map(self._frame, frames))

    def end(self) -> bytes:
        """The engine has died under these."""
        told = self._handle.opening(own=self._open)[0].incidents
        if not self._sees_all:
            told = tuple(
                Incident(incident=one.incident, t_s=one.t_s, requests=tuple(map(self._alias, one.requests)))
                for one in told
            )
        return encoded(list(told))

    def _frame(self, frame: Frame) -> bytes:
        new = frame.ids - self._known
        records = [record for i in new if (record := self._frames.request(i)) is not None]
        self._known |= new
        self._open |= new
        self._open.difference_update(frame.step.finished)
        step = frame.whole if self._sees_all else frame.seen_by(self._name)
        if not records:
            return step
        return encoded([self._request(record) for record in sorted(records, key=lambda r: r.arrival_s)]) + step

    def _header(self, header: Header) -> Header:
        if self._sees_all:
            return replace(header, extra={**header.extra, WHOSE: TOLD})
        return hidden_header(header, self._alias)

    def _request(self, request: Request) -> Request:
        if self._sees_all:
            return request
        if request.user == self._name:
            return replace(request, extra={}, salt="")
        return hidden_request(request, self._frames.alias(request.request_id))

    def _alias(self, request_id: str) -> str:
        is_own = self._frames.user_of.get(request_id) == self._name
        return request_id if is_own else self._frames.alias(request_id)
