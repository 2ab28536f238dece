"""Records of a trace on their way out of a server: over a socket to TraceReceiver, or into a file.

Nothing here waits: what nobody takes is dropped and counted, and when somebody takes it again the trace begins anew,
with the KV cache as it is then. So a receiver may come, go and come back at any time.
This file must not know any engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq
from msgspec.structs import replace

from llmlab.engines.recorder import Recorder
from llmlab.errors import EngineError
from llmlab.trace import Header, Request, Step, Trace, lines

# Records that wait for a receiver that is slow; a step takes 1 to 50 kB.
MAX_WAITING = 10_000
LINGER_MS = 500
Line = Header | Request | Step
# First byte of a message: which record follows, as msgpack.
KINDS: dict[bytes, type[Line]] = {b"H": Header, b"R": Request, b"S": Step}
_FIRST_BYTES = {kind: byte for byte, kind in KINDS.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {byte: msgspec.msgpack.Decoder(kind) for byte, kind in KINDS.items()}


class TraceSender:
    """Sends to ipc://PATH or tcp://HOST:PORT, where a TraceReceiver is or will be; or writes a file PATH.jsonl.

    `opening` gives the records that a trace begins with: the header, with the KV cache as it is now, and the requests
    that are alive.

    Raises: EngineError when the address cannot be used.
    """

    def __init__(self, address: str, opening: Callable[[], Sequence[Line]]) -> None:
        self.num_lost = 0  # records
        self._opening = opening
        self._is_open = False
        try:
            self._way = _Socket(address) if "://" in address else _File(address)
        except (OSError, zmq.ZMQError) as error:
            raise EngineError(
                f"The trace cannot go to {address!r} ({error}). Give ipc:///a/path, tcp://host:port or a file.jsonl."
            ) from None

    def open(self) -> bool:
        """Begin a trace when there is somebody to take it. False when there is nobody."""
        if self._way.is_new():
            self._is_open = False
        if not self._is_open and self._way.is_ready():
            header, *requests = self._opening()
            assert isinstance(header, Header)
            if self.num_lost:
                header = replace(header, extra={**header.extra, "num_lost_records": self.num_lost})
            self._is_open = self._put([header, *requests])
        return self._is_open

    def send(self, records: Sequence[Line]) -> None:
        """Hand records over, or count them as lost."""
        was_open = self._is_open and not self._way.is_new()
        if was_open:
            self._is_open = self._put(records)
            return
        # They have happened already: what opens a trace now comes after them.
        self.num_lost += len(records)
        self._is_open = False
        self.open()

    def close(self) -> None:
        self._way.close()

    def _put(self, records: Sequence[Line]) -> bool:
        for i, record in enumerate(records):
            if not self._way.put(record):
                self.num_lost += len(records) - i
                return False
        return True


class _Socket:
    """A PUSH socket that holds nothing back for a receiver that is not there."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()  # of our own: the server has others
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.set_hwm(MAX_WAITING)
        self._socket.linger = LINGER_MS
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._news = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            self._socket.connect(address)
        except zmq.ZMQError:
            self.close()
            raise

    def is_new(self) -> bool:
        """A receiver came since the last call: it knows nothing yet."""
        came = False
        while self._news.poll(0):
            self._news.recv_multipart()
            came = True
        return came

    def is_ready(self) -> bool:
        return bool(self._socket.poll(0, zmq.POLLOUT))

    def put(self, record: Line) -> bool:
        try:
            self._socket.send(_FIRST_BYTES[type(record)] + _ENCODER.encode(record), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def close(self) -> None:
        self._socket.disable_monitor()
        self._news.close()
        self._socket.close()
        self._context.term()


class _File:
    """JSON Lines, one write each: a server that is killed leaves all but the last line."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by close)

    def is_new(self) -> bool:
        return False

    def is_ready(self) -> bool:
        return self._file.tell() == 0  # one file holds one trace

    def put(self, record: Line) -> bool:
        line = lines.encode(record) + b"\n"
        try:
            return self._file.write(line) == len(line)
        except OSError:
            return False

    def close(self) -> None:
        self._file.close()


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
