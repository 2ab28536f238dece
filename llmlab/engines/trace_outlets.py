"""Where the records of a trace go: one Outlet for each taker, a socket to TraceReceiver, a file, or a client over HTTP.

This file must not know any engine, or who makes the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import zmq
from msgspec.structs import replace

from llmlab.engines.trace_listener import Client
from llmlab.errors import EngineError
from llmlab.trace import Header, Request, Step, lines

# Records that wait for a receiver that is slow; a step takes 1 to 50 kB.
MAX_WAITING = 10_000
LINGER_MS = 500
Line = Header | Request | Step
# First byte of a message: which record follows, as msgpack.
KINDS: dict[bytes, type[Line]] = {b"H": Header, b"R": Request, b"S": Step}
_FIRST_BYTES = {kind: byte for byte, kind in KINDS.items()}
_ENCODER = msgspec.msgpack.Encoder()


class Way(Protocol):
    """Where the records go to one taker. No method waits."""

    def is_new(self) -> bool:
        """Another taker came since the last call: it knows nothing yet."""

    def is_ready(self) -> bool:
        """A trace can begin."""

    def put(self, record: Line) -> bool:
        """False when there is no room for it."""

    def close(self) -> None: ...


class Outlet:
    """One taker, and whether it is in the middle of a trace."""

    def __init__(self, way: Way) -> None:
        self.num_lost = 0  # records
        self._way = way
        self._is_open = False

    @property
    def is_gone(self) -> bool:
        return isinstance(self._way, Client) and self._way.is_gone

    def open(self, opening: Callable[[], Sequence[Line]]) -> bool:
        if self._way.is_new():
            self._is_open = False
        if not self._is_open and self._way.is_ready():
            header, *requests = opening()
            assert isinstance(header, Header)
            if self.num_lost:
                header = replace(header, extra={**header.extra, "num_lost_records": self.num_lost})
            self._is_open = self._put([header, *requests])
        return self._is_open

    def send(self, records: Sequence[Line], opening: Callable[[], Sequence[Line]]) -> None:
        was_open = self._is_open and not self._way.is_new()
        if was_open:
            self._is_open = self._put(records)
            return
        # They have happened already: what opens a trace now comes after them.
        self.num_lost += len(records)
        self._is_open = False
        self.open(opening)

    def close(self) -> None:
        self._way.close()

    def _put(self, records: Sequence[Line]) -> bool:
        for i, record in enumerate(records):
            if not self._way.put(record):
                self.num_lost += len(records) - i
                return False
        return True


def way_to(address: str) -> Way:
    """Raises: EngineError."""
    try:
        return _Socket(address) if "://" in address else _File(address)
    except (OSError, zmq.ZMQError) as error:
        raise EngineError(
            f"The trace cannot go to {address!r} ({error}). Give http://127.0.0.1:port, ipc:///a/path, tcp://host:port "
            "or a file.jsonl."
        ) from None


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
