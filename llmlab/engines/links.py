"""InlineLink: the engine loop on a worker thread of this process. The other way to an engine is HostLink.

Both are a Link: what the notebook's side needs of the place where an engine runs. This file must not know what the
messages mean.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from llmlab.engines import messages as wire
from llmlab.engines.base import EngineConfig
from llmlab.engines.host import create_engine, ready
from llmlab.engines.loop import EngineLoop


class Link(Protocol):
    """A way to an engine. send() from any thread, receive() from one."""

    pid: int
    # True when the engine has a process of its own.
    is_process: bool

    def send(self, command: wire.Command) -> None:
        """Never blocks for long. What is sent to an engine that has died is lost; receive() and end() tell."""

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, or None."""

    def end(self) -> str | None:
        """How the engine's process or thread ended, such as "was killed by SIGKILL"; None while it lives."""

    def is_stopped(self) -> bool:
        """True while a signal holds the process up (SIGSTOP)."""

    def kill(self) -> None:
        """End it at once."""

    def log_lines(self, num_lines: int) -> list[str]:
        """The last lines that the engine wrote."""

    def close(self, grace_s: float) -> None:
        """End it, and give everything back. A second call does nothing."""


class InlineLink:
    """An engine on a thread of this process. A crash of the engine takes the notebook along."""

    is_process = False

    def __init__(self, config: EngineConfig, parts: dict[str, Any]) -> None:
        self.pid = os.getpid()
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        self._log: list[str] = []
        self._loop: EngineLoop | None = None
        self._end: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(config, parts), name="engine", daemon=True)
        self._thread.start()

    def send(self, command: wire.Command) -> None:
        self._closed = self._closed or isinstance(command, wire.Close)
        if self._loop is not None:
            self._loop.put(command)

    def receive(self, timeout_s: float) -> bytes | None:
        with contextlib.suppress(Empty):
            return self._messages.get(timeout=timeout_s)
        return None

    def end(self) -> str | None:
        return self._end

    def is_stopped(self) -> bool:
        return False

    def kill(self) -> None:
        """A thread cannot be killed: it is asked to end after its step."""
        self.send(wire.Close())

    def log_lines(self, num_lines: int) -> list[str]:
        return self._log[-num_lines:]

    def close(self, grace_s: float) -> None:
        self.send(wire.Close())
        self._thread.join(grace_s)

    def _run(self, config: EngineConfig, parts: dict[str, Any]) -> None:
        started = time.monotonic()
        try:
            engine = create_engine(config, parts)
            answer = ready(engine, time.monotonic() - started)
        except Exception as error:
            self._note_exception()
            self._messages.put(wire.EVENT + wire.encode(wire.LoadFailed(type(error).__name__, str(error))))
            self._end = "could not be loaded"
            return
        self._loop = EngineLoop(engine, self._messages.put)
        if self._closed:  # while it was loading: that Close reached no loop
            self._loop.put(wire.Close())
        self._messages.put(wire.EVENT + wire.encode(answer))
        self._end = self._serve(self._loop.run) or self._serve(engine.close) or "was closed"

    def _serve(self, work: Callable[[], None]) -> str | None:
        try:
            work()
        except Exception as error:
            self._note_exception()
            return f"failed: {error}"
        return None

    def _note_exception(self) -> None:
        self._log += traceback.format_exc().splitlines()
