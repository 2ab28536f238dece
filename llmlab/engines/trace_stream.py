"""Records of a trace on their way out of a server: to whoever follows it over HTTP, over a socket to TraceReceiver, or
into a file; to several of these at once.

Nothing here waits: what nobody takes is dropped and counted, and when somebody takes it again the trace begins anew,
with the KV cache as it is then. So a receiver may come, go and come back at any time.
This file must not know any engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import zmq

from llmlab.engines.recorder import Recorder
from llmlab.engines.trace_listener import Client, TraceListener
from llmlab.engines.trace_outlets import KINDS, MAX_WAITING, Line, Outlet, way_to
from llmlab.errors import EngineError
from llmlab.trace import Header, Request, Trace

_DECODERS = {byte: msgspec.msgpack.Decoder(kind) for byte, kind in KINDS.items()}


class TraceSender:
    """Sends to each of `addresses`, which commas part: http://HOST:PORT lets clients come and follow; at ipc://PATH or
    tcp://HOST:PORT is a TraceReceiver, or will be; PATH.jsonl is a file that is written.

    `opening` gives the records that a trace begins with: the header, with the KV cache as it is now, and the requests
    that are alive. `token`: what clients must send. `now_s`: the clock of the steps. `lock` is held while a client
    comes, which may be at any moment: hold it while the engine changes what the opening tells, and in every call.

    Raises: EngineError when an address cannot be used, or clients could come without a token.
    """

    def __init__(
        self,
        addresses: str,
        opening: Callable[[], Sequence[Line]],
        *,
        token: str | None = None,
        now_s: Callable[[], float] = time.monotonic,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._opening = opening
        self._lock: AbstractContextManager[Any] = lock or threading.RLock()
        self._outlets: list[Outlet] = []
        self.listeners: list[TraceListener] = []
        try:
            for address in filter(None, map(str.strip, addresses.split(","))):
                if address.startswith("http://"):
                    self.listeners.append(TraceListener(address, token, welcome=self._welcome, now_s=now_s))
                else:
                    self._outlets.append(Outlet(way_to(address)))
        except BaseException:
            self.close()
            raise

    @property
    def num_lost(self) -> int:
        """Records that nobody took, or somebody who is here was too slow for."""
        return sum(outlet.num_lost for outlet in self._outlets)

    def open(self) -> bool:
        """Begin a trace where there is somebody to take it. False when there is nobody."""
        are_open = [outlet.open(self._opening) for outlet in self._outlets]
        return any(are_open)

    def send(self, records: Sequence[Line]) -> None:
        """Hand records over, or count them as lost."""
        for outlet in self._outlets:
            outlet.send(records, self._opening)
        if any(outlet.is_gone for outlet in self._outlets):
            self._outlets = [outlet for outlet in self._outlets if not outlet.is_gone]

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        for outlet in self._outlets:
            outlet.close()

    def _welcome(self, client: Client) -> None:
        """In the thread of a client that comes."""
        with self._lock:
            outlet = Outlet(client)
            outlet.open(self._opening)
            self._outlets.append(outlet)


class TraceReceiver:
    """Takes what a TraceSender sends, from now until close(). The address is bound here: start it before or after.

    Raises: EngineError when the address is in use.
    """

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        socket = self._context.socket(zmq.PULL)
        socket.set_hwm(MAX_WAITING)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            raise EngineError(
                f"No trace can be received at {address!r} ({error}). Give ipc:///a/path or tcp://*:port."
            ) from None
        self.num_strange = 0  # messages that are no records of ours
        self._recorder: Recorder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(socket,), name="llmlab trace receiver", daemon=True)
        self._thread.start()

    @property
    def num_steps(self) -> int:
        """Of the trace that is coming in."""
        return self._recorder.num_steps if self._recorder else 0

    @property
    def num_lost_records(self) -> int:
        """How many the sender had to drop before this trace began."""
        return int(self._recorder.header.extra.get("num_lost_records", 0)) if self._recorder else 0

    def trace(self) -> Trace | None:
        """What has come since the trace began; None before that. Requests that go on end in an Incident "cut"."""
        return self._recorder.slice() if self._recorder else None

    def wait(self, num_steps: int, timeout_s: float) -> bool:
        """True when so many steps have come."""
        end_s = time.monotonic() + timeout_s
        while self.num_steps < num_steps and time.monotonic() < end_s:
            time.sleep(0.01)
        return self.num_steps >= num_steps

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.term()

    def __enter__(self) -> TraceReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, socket: zmq.Socket[Any]) -> None:
        try:
            while not self._stop.is_set():
                if socket.poll(100):
                    self._take(socket.recv())
        finally:
            socket.close(linger=0)

    def _take(self, message: bytes) -> None:
        kind, content = message[:1], message[1:]
        try:
            record = _DECODERS[kind].decode(content)
        except (KeyError, msgspec.MsgspecError, ValueError):
            self.num_strange += 1
            return
        if isinstance(record, Header):
            self._recorder = Recorder(record)
        elif self._recorder is not None and isinstance(record, Request):
            self._recorder.add_request(record)
        elif self._recorder is not None:
            self._recorder.add_step(content)
