"""Endpoint: uvicorn on a thread of this process. What `llmlab serve` and the gateway share.

This file must not know routes or engines.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from llmlab.engines.access import is_loopback
from llmlab.errors import EngineError

# An end tells the streams that are open, and waits this long for them to be read to their end.
STOP_S, START_S, POLL_S = 2, 30.0, 0.25
# An idle connection: longer than any client keeps one (httpx 5 s, aiohttp 15 s), so that no request meets its end.
KEPT_S = 75
# Hosts that are no address, but all of a machine's.
EVERYWHERE = ("0.0.0.0", "::", "")


class Endpoint:
    """An application that listens. `name`: of its thread; `lifespan`: whether it runs things beside the requests."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, host: str, tls: dict[str, Any], name: str, lifespan: bool
    ) -> None:
        self._listener = listener
        self.host, self.port, self.is_tls = host, int(listener.getsockname()[1]), bool(tls)
        # what it logs would land in a notebook's cells
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app, lifespan="on" if lifespan else "off", ws="none", log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=STOP_S, timeout_keep_alive=KEPT_S, **tls,
        )  # fmt: skip
        config.load()  # a key that cannot be read is told here, not in the thread
        self._uvicorn = uvicorn.Server(config)
        # Not Thread.join(): one that Ctrl-C breaks off takes the thread for ended (CPython's bpo-45274).
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def url(self) -> str:
        """What clients take as their base URL, without the /v1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"

    @property
    def url_outside(self) -> str:
        """What people type. At every address of this machine it is the name that the machine gives itself."""
        if self.host not in EVERYWHERE:
            return self.url
        return f"{'https' if self.is_tls else 'http'}://{socket.gethostname()}:{self.port}"

    @property
    def running(self) -> bool:
        return self._thread.ident is not None and not self._ended.is_set()

    @property
    def is_open_and_plain(self) -> bool:
        """Other machines reach it, and what they send is not encrypted."""
        return not (self.is_tls or is_loopback(self.host))

    def _come_up(self, failed: str) -> None:
        """Raises: EngineError with the sentence `failed` when it does not come up."""
        self._thread.start()
        end_s = time.monotonic() + START_S
        while not self._uvicorn.started:
            if self._ended.is_set() or time.monotonic() > end_s:
                raise EngineError(failed)
            time.sleep(0.005)

    def _let_in_nobody(self) -> None:
        self._uvicorn.should_exit = True

    def _go_down(self) -> None:
        """Until it has ended, unless its own thread asks; its port is free then."""
        self._let_in_nobody()
        if self.running and threading.current_thread() is not self._thread:
            self._ended.wait(STOP_S + START_S)
        self._listener.close()

    def _run(self) -> None:
        try:
            self._uvicorn.run(sockets=[self._listener])
        finally:
            self._ended.set()
