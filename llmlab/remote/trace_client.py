"""TraceClient: follows a server's trace over HTTP, from a thread of its own, and comes back after a drop.

`GET ADDRESS/trace` gives the lines of a trace file, as llmlab's server and vLLM with our scheduler class send them.
This file must not know handles or segments.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

from llmlab.errors import EngineError, TraceError
from llmlab.language import tr
from llmlab.remote import failures
from llmlab.remote.clock import Clock
from llmlab.remote.keys import Key
from llmlab.trace import Header, lines
from llmlab.trace.jsonl import MAX_LINE_BYTES
from llmlab.trace.lines import Line

# A server that is there says something each second.
SILENT_S = 5.0
RETRY_S, MAX_RETRY_S = 0.2, 5.0
MAX_REPLY_BYTES = 2**16
END_S = 2.0


class Follower(Protocol):
    """What takes the trace. Called in one thread."""

    def begin(self, header: Header, clock: Clock) -> None:
        """A trace begins; the one before it has ended, if not by break_off() then here."""

    def take(self, record: Line) -> None:
        """What follows."""

    def break_off(self, why: str) -> None:
        """The stream is gone; begin() comes when it is there again."""


class TraceClient:
    """Made and started by connect(); first_header() says whether there is a trace."""

    def __init__(self, address: str, token: Key, follower: Follower) -> None:
        self.address, self._token, self._follower = address, token, follower
        self._parts = urlsplit(address)
        self._is_closed = threading.Event()
        self._has_begun = threading.Event()
        self._refusal: EngineError | None = None  # of the first try
        self._socket: socket.socket | None = None  # of the stream
        self._thread = threading.Thread(target=self._run, name="llmlab trace", daemon=True)
        self._thread.start()

    def wait_begun(self, timeout_s: float) -> None:
        """Until the trace has begun. Raises: EngineError when there is none, or the token is not the right one."""
        has_begun = self._has_begun.wait(timeout_s)
        if self._refusal is not None:
            raise self._refusal
        if not has_begun:
            raise failures.late(f"{self.address}/trace", timeout_s)

    def close(self) -> None:
        self._is_closed.set()
        if (stream := self._socket) is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)  # the thread reads from it
        if threading.current_thread() is not self._thread:
            self._thread.join(END_S)

    # ---- the thread

    def _run(self) -> None:
        wait_s = RETRY_S
        while not self._is_closed.is_set():
            began_s = time.monotonic()
            try:
                for record, clock in self._records():
                    self._hand_over(record, clock)
                why = "the stream ended"
            except EngineError as error:
                if self._refuse(error):
                    return
                why = failures.one_line(error)
            except (OSError, http.client.HTTPException, TraceError, ValueError) as error:
                why = self._token.hide(failures.one_line(error) or type(error).__name__)
                if self._refuse(self._no_trace(why)):
                    return
            if self._is_closed.is_set():
                return
            self._follower.break_off(why)
            lasted_s = time.monotonic() - began_s
            wait_s = RETRY_S if lasted_s > MAX_RETRY_S else min(2 * wait_s, MAX_RETRY_S)
            self._is_closed.wait(wait_s)

    def _refuse(self, error: EngineError) -> bool:
        """It was the first try: connect() tells it."""
        if self._has_begun.is_set():
            return False
        self._refusal = error
        self._has_begun.set()
        return True

    def _hand_over(self, record: Line, clock: Clock) -> None:
        if isinstance(record, Header):
            self._follower.begin(record, clock)
            self._has_begun.set()
        else:
            self._follower.take(record)

    def _records(self) -> Iterator[tuple[Line, Clock]]:
        """The records of one stream, its header first. Raises: EngineError when there is no such trace."""
        clock = self._measured()
        with self._asked("/trace") as response:
            is_first = True
            while line := response.readline(MAX_LINE_BYTES + 1):
                if self._is_closed.is_set():
                    return
                if not line.endswith(b"\n"):
                    raise TraceError("the stream ended in the middle of a line")
                if not line.strip():
                    continue
                record = lines.decode(line.rstrip(b"\r\n"))
                if is_first and not isinstance(record, Header):
                    raise TraceError("the stream does not begin with a header")
                is_first = False
                yield record, clock

    def _measured(self) -> Clock:
        with contextlib.closing(self._connect()) as connection:

            def ask() -> float:
                connection.request("GET", f"{self._parts.path}/trace/clock", headers=self._headers)
                response = connection.getresponse()
                body = response.read(MAX_REPLY_BYTES)
                self._check(response.status, body)
                return float(json.loads(body)["t_s"])

            try:
                return Clock.measured(ask)
            except (KeyError, TypeError):
                raise self._no_trace() from None

    @contextlib.contextmanager
    def _asked(self, route: str) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        try:
            connection.connect()
            self._socket = connection.sock
            if self._is_closed.is_set():
                raise ConnectionError("closed")
            connection.request("GET", f"{self._parts.path}{route}", headers=self._headers)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                self._check(response.status, response.read(MAX_REPLY_BYTES))
            yield response
        finally:
            self._socket = None
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=SILENT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=SILENT_S)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.secret}"} if self._token else {}

    def _check(self, status: int, body: bytes) -> None:
        """Raises: EngineError when that is no trace."""
        if status == http.HTTPStatus.OK:
            return
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            text = (
                tr("The trace at {url} refuses the token.", url=self.address)
                if self._token
                else tr("The trace at {url} wants a token.", url=self.address)
            )
            raise EngineError(
                tr(
                    "{text} Put what the server has in LLMLAB_TRACE_TOKEN into an environment variable here, and name "
                    "it: `--trace-token-env VARIABLE`.",
                    text=text,
                )
            )
        if status == http.HTTPStatus.NOT_FOUND:
            raise self._no_trace()
        raise EngineError(
            tr(
                "The trace at {url} cannot be followed: {said}",
                url=self.address,
                said=self._token.hide(failures.one_line(_message(body) or f"HTTP {status}")),
            )
        )

    def _no_trace(self, why: str = "") -> EngineError:
        return EngineError(
            tr(
                "No trace at {url}{why}. `%llm serve` has one; a vLLM server has one where LLMLAB_TRACE says, when it "
                "was started with --scheduler-cls llmlab.engines.vllm_scheduler.TracedScheduler: give that address, "
                "`--trace http://host:8100`. Or connect without --trace.",
                url=self.address,
                why=f" ({why})" if why else "",
            )
        )


def _message(body: bytes) -> str:
    """What an error of ours, or of OpenAI's form, says."""
    try:
        told = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(told)
