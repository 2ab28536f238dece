"""Server: an engine behind an endpoint of this process, from serve() to stop().

This file must not know routes.
"""

from __future__ import annotations

import shlex
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import ASGIApp

from llmlab.cards import Card
from llmlab.engines import access
from llmlab.engines.handle import EngineHandle
from llmlab.engines.limits import check_limits
from llmlab.engines.registry import current, require_loaded
from llmlab.errors import EngineError
from llmlab.language import tr
from llmlab.serve.app import Service
from llmlab.serve.door import Door, Keys, OneToken
from llmlab.serve.endpoint import POLL_S, Endpoint
from llmlab.serve.listening import closed_on_failure, listen, tls_files
from llmlab.serve.metrics import Metrics
from llmlab.serve.queueing import Queue

MAX_BODY_BYTES = 4 * 2**20
MAX_OPEN = 256

_servers: dict[EngineHandle, Server] = {}
ServerT = TypeVar("ServerT", bound="Server")


class Server(Endpoint):
    """A running endpoint. Made by llmlab.serve(); ends by stop(), or when its engine is unloaded."""

    def __init__(
        self,
        handle: EngineHandle,
        listener: socket.socket,
        *,
        host: str,
        token: str,
        tls: dict[str, Any],
        max_open: int,
        max_body_bytes: int,
    ) -> None:
        self.handle, self.token = handle, token
        self._queue = Queue(max_open)
        metrics = Metrics(handle, self._queue)
        self._service = self._make_service(metrics)
        self._door = Door(self._app(), keys=self._keys(), max_body_bytes=max_body_bytes, metrics=metrics)
        super().__init__(self._door, listener, host=host, tls=tls, name="llmlab server", lifespan=False)
        self._watcher = threading.Thread(target=self._watch_engine, name="llmlab server watch", daemon=True)

    # ---- what it is made of

    def _make_service(self, metrics: Metrics) -> Service:
        return Service(self.handle, self._queue, metrics)

    def _app(self) -> ASGIApp:
        return self._service.app()

    def _keys(self) -> Keys:
        return OneToken(self.token)

    # ---- what a user does

    @property
    def num_open(self) -> int:
        """Answers to clients that have not ended on the engine."""
        return self._queue.num_open

    @property
    def failures(self) -> list[str]:
        """Tracebacks of requests that this server failed on: there should be none."""
        return list(self._door.failures)

    def stop(self) -> None:
        """End it: what still runs for its clients is stopped on the engine. A second call does nothing."""
        self._let_in_nobody()
        self._service.cancel_all()
        self._go_down()
        if _servers.get(self.handle) is self:
            del _servers[self.handle]

    def wait(self) -> None:
        """Until it has ended, or its engine has died. Ctrl-C raises KeyboardInterrupt, and the server runs on."""
        while self.handle.alive and not self._ended.wait(POLL_S):
            pass

    def how_to_call(self, variable: str | None = None) -> str:
        """A line for the shell that asks it something. `variable`: that of the environment which holds the token."""
        insecure = " -k" if self.is_tls else ""
        head = "Authorization: Bearer "
        key = shlex.quote(head + self.token) if variable is None else f'"{head}${variable}"'
        return (
            f"curl{insecure} {self.url_outside}/v1/chat/completions -H {key} -H 'Content-Type: application/json' "
            f'-d \'{{"messages": [{{"role": "user", "content": "Why is the sky blue?"}}], "max_tokens": 40}}\''
        )

    @property
    def card(self) -> Card:
        """Where it is and how it is called, the token included."""
        return self.card_of()

    def card_of(self, variable: str | None = None) -> Card:
        """The same; with the environment variable that holds the token, where others read what is shown."""
        key = f'"{self.token}"' if variable is None else f'os.environ["{variable}"]'
        python = (
            f'openai.OpenAI(base_url="{self.url_outside}/v1", api_key={key}).chat.completions.create('
            f'model="{self.handle.name}", messages=[{{"role": "user", "content": "Hi"}}])'
        )
        shown = self.token if variable is None else f"${variable}"
        rows = (("URL", f"{self.url_outside}/v1"), ("token", shown), (tr("model"), self.handle.name))
        notes = [
            tr("In Python: `{code}`", code=python),
            tr("In a shell: `{code}`", code=self.how_to_call(variable)),
            *self._warnings(),
        ]
        return Card(tr("{name} is served", name=self.handle.name), (), rows, tuple(notes))

    def __repr__(self) -> str:
        state = "" if self.running else ", stopped"
        return f"Server({self.handle.name!r} at {self.url}/v1{state})"

    def _warnings(self) -> list[str]:
        if not self.is_open_and_plain:
            return []
        return [
            tr(
                "Other machines reach it, and the token travels unencrypted: give it a certificate (--tls-cert, "
                "--tls-key)."
            )
        ]

    # ---- threads

    def start(self) -> Server:
        """Raises: EngineError when it does not come up."""
        self._come_up(tr("The server at {url} did not start.", url=self.url))
        self._watcher.start()
        _servers[self.handle] = self
        return self

    def _watch_engine(self) -> None:
        while not self._ended.wait(POLL_S):
            if self.handle.is_unloaded:
                self.stop()


def serve(
    handle: EngineHandle | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_open: int = MAX_OPEN,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Server:
    """Put a loaded engine, the current one if none is given, behind an OpenAI-compatible endpoint; returns at once.

    `port` 0: any free one. `token`: what clients must send as their API key; made here when none is given. `max_open`:
    answers that may run or wait at once, others get 429. An engine has one server: another one takes its place.

    >>> srv = llmlab.serve(eng); srv.url, srv.token    # doctest: +SKIP

    Raises: EngineError when the engine is gone, the port is taken, a certificate or a value cannot be used.
    """
    if token is not None:
        check_token(token)
    made = partial(Server, token=token or access.new_token(), max_body_bytes=max_body_bytes)
    return opened(made, handle, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, max_open=max_open)


def check_token(token: str) -> None:
    """Raises: EngineError for one that clients could not send, or that is soon guessed."""
    if not access.TOKEN.fullmatch(token):
        raise EngineError(tr("A token is 8 or more plain characters without spaces. Leave it out, and one is made."))


def opened(
    make: Callable[..., ServerT],
    handle: EngineHandle | None,
    *,
    host: str,
    port: int,
    tls_cert: str | Path | None,
    tls_key: str | Path | None,
    max_open: int,
) -> ServerT:
    """The server that make(handle, listener, host=, tls=, max_open=) gives, running. Arguments, errors: see serve()."""
    handle = handle or current()
    if handle is None:
        raise EngineError(tr("No engine is loaded. Load one: `%llm load smollm2-135m`."))
    require_loaded(handle)
    check_limits(max_open=max_open)
    tls = tls_files(tls_cert, tls_key)
    if (before := _servers.get(handle)) is not None:
        before.stop()
    listener = listen(host, port)
    with closed_on_failure(listener):
        server = make(handle, listener, host=host, tls=tls, max_open=max_open)
        server.start()
        return server


def servers() -> list[Server]:
    """What is served by this process."""
    return [server for server in _servers.values() if server.running]
