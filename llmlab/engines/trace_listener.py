"""TraceListener: who follows a trace over HTTP, served by threads in the process of an engine that has no event loop.

The routes are those of llmlab/serve/tracing.py: GET /trace is the trace as lines of a trace file, GET /trace/clock its
clock. Every one needs the token. This file must not know any engine.
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from llmlab.engines import access
from llmlab.errors import EngineError
from llmlab.trace import lines
from llmlab.trace.lines import Line

TOKEN = "LLMLAB_TRACE_TOKEN"  # the environment variable that has it
MAX_WAITING = 10_000  # records for one client that is slow; a step takes 1 to 50 kB
MAX_CLIENTS = 16
PERIOD_S, IDLE_S, POLL_S = 0.05, 1.0, 0.1
CLIENT_TIMEOUT_S = 10.0  # in which a client must ask, and take what is sent


class Client:
    """Records on their way to one client: the engine puts them in, the client's thread takes them out."""

    def __init__(self) -> None:
        self._waiting: deque[Line] = deque()
        self.is_gone = False  # it has left
        self.is_over = False  # nothing will follow

    def is_new(self) -> bool:
        return False

    def is_ready(self) -> bool:
        """Who was too slow begins anew when it has caught up."""
        return not self._waiting

    def put(self, record: Line) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(record)
        return True

    def take(self) -> list[Line]:
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def close(self) -> None:
        self.is_over = True


class TraceListener:
    """Listens at http://HOST:PORT. `welcome` begins the trace of a new client, `now_s` is the clock of its steps.

    Raises: EngineError when there is no token for it, or nothing can listen there.
    """

    def __init__(
        self, address: str, token: str | None, *, welcome: Callable[[Client], None], now_s: Callable[[], float]
    ) -> None:
        self._token, self._welcome, self.now_s = _checked(token).encode(), welcome, now_s
        self.num_clients = 0
        self._lock = threading.Lock()
        self.is_closed = False
        host, port = _place(address)
        try:
            self._server = _Server((host, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise EngineError(f"Nobody can follow the trace at {address!r} ({error}). Choose another port.") from None
        self.port = int(self._server.server_address[1])
        self.warning = "" if access.is_loopback(host) else _OPEN.format(address=address)
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="llmlab trace", daemon=True).start()

    def close(self) -> None:
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()

    def knows(self, authorization: str) -> bool:
        """Takes as long for a token that is nearly right as for any other."""
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)

    def enter(self) -> Client | None:
        """A place for one more client; None when there is none."""
        with self._lock:
            if self.num_clients >= MAX_CLIENTS:
                return None
            self.num_clients += 1
        client = Client()
        self._welcome(client)
        return client

    def leave(self, client: Client) -> None:
        client.is_gone = True
        with self._lock:
            self.num_clients -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    @property
    def address_family(self) -> socket.AddressFamily:  # type: ignore[override]
        return self._family

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no news in the log of a server."""


def _handler(listener: TraceListener) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_TIMEOUT_S
        server_version, sys_version = "llmlab", ""

        def do_GET(self) -> None:
            if not listener.knows(self.headers.get("Authorization") or ""):
                self._refuse(HTTPStatus.UNAUTHORIZED, _NO_TOKEN)
            elif self.path == "/trace/clock":
                self._reply(HTTPStatus.OK, {"t_s": listener.now_s()})
            elif self.path == "/trace":
                self._follow()
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "Here is the trace of an engine: GET /trace, GET /trace/clock.")

        def _follow(self) -> None:
            client = listener.enter()
            if client is None:
                self._refuse(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{MAX_CLIENTS} clients follow the trace, and that is the limit. Try again later.",
                )
                return
            try:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "application/jsonl")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self._write(client)
            finally:
                listener.leave(client)

        def _write(self, client: Client) -> None:
            said_s = time.monotonic()
            while True:
                is_over = client.is_over or listener.is_closed
                if records := client.take():
                    self.wfile.write(b"".join(lines.encode(record) + b"\n" for record in records))
                    said_s = time.monotonic()
                elif is_over:
                    return
                elif time.monotonic() - said_s > IDLE_S:  # the server is there, and so is the client
                    self.wfile.write(b"\n")
                    said_s = time.monotonic()
                time.sleep(PERIOD_S)

        def _refuse(self, status: HTTPStatus, message: str) -> None:
            self._reply(status, {"error": {"message": message, "type": "trace", "param": None, "code": None}})

        def _reply(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            if status == HTTPStatus.UNAUTHORIZED:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """A path is the client's: nothing of it goes into a log."""

    return Handler


_NO_TOKEN = (
    "The trace needs its token: send the header `Authorization: Bearer TOKEN`. It is what the server has in the "
    f"environment variable {TOKEN}."
)
_OPEN = (
    "other machines reach the trace at {address}, and token and prompts travel unencrypted: listen at 127.0.0.1 and "
    "let others come by `ssh -L`, or put TLS in front"
)


def _checked(token: str | None) -> str:
    if not token:
        raise EngineError(f"A trace over HTTP needs a token: put one into the environment variable {TOKEN}.")
    if not access.TOKEN.fullmatch(token):
        raise EngineError(f"{TOKEN} must be 8 or more plain characters without spaces.")
    return token


def _place(address: str) -> tuple[str, int]:
    """Host and port of http://HOST:PORT; without a host, this machine alone."""
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise EngineError(f"{address!r} is no place to listen at. For example: http://127.0.0.1:8100")
    return parts.hostname or "127.0.0.1", port
