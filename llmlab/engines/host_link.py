"""HostLink: starts an engine host (host.py) and talks to it over two ZeroMQ sockets in a private folder.

This file must not know what the messages mean.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import zmq

import llmlab
from llmlab.engines import messages as wire
from llmlab.engines.host import COMMANDS, EVENTS

LOG = "host.log"
MAX_LOG_BYTES = 2**18  # what is read of a log, from its end
KILLED_S = 5.0  # a killed process is reaped within this time
# How long a command may wait for the host to connect its socket.
CONNECT_MS = 2000
# Read when libgomp and ggml load. Spinning threads slow a shared machine tenfold; the backtrace of a GGML_ASSERT starts
# gdb and takes seconds. A user's own value wins.
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}
# A Unix socket path has room for 107 bytes (104 on macOS).
MAX_SOCKET_PATH = 100


class HostLink:
    """An engine in a process of its own. Raises: OSError when the process cannot be started."""

    is_process = True

    def __init__(self, load: wire.Load) -> None:
        self.folder = _private_folder()
        self._log_tail: list[str] = []
        self._context = zmq.Context()
        self._commands, self._events = self._bind(zmq.PUSH, COMMANDS), self._bind(zmq.PULL, EVENTS)
        self._commands.setsockopt(zmq.SNDTIMEO, CONNECT_MS)
        self._receive_timeout_s: float | None = None
        self._send_lock = threading.Lock()
        self._closed = False
        self._process = self._start()
        self.pid = self._process.pid
        self._hand_over(load)

    def _bind(self, kind: int, name: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set_hwm(0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{self.folder / name}")
        return socket

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: a file random.py beside the notebook must not hide the one that the engine needs.
        command = [sys.executable, "-P", "-m", "llmlab.engines.host", str(self.folder)]
        with (self.folder / LOG).open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,  # the Ctrl-C of a terminal goes to all processes of a session
            )

    def _hand_over(self, load: wire.Load) -> None:
        content = wire.encode(load)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died already; end() says how
            self._process.stdin.write(len(content).to_bytes(8, "little") + content)
            self._process.stdin.flush()

    def send(self, command: wire.Command) -> None:
        with self._send_lock:
            if self._closed or self._process.poll() is not None:
                return
            with contextlib.suppress(zmq.Again):  # it died just now: end() will say how
                self._commands.send(wire.encode(command))

    def receive(self, timeout_s: float) -> bytes | None:
        # Not poll(): it makes a poller for each call, which costs more than the message.
        if timeout_s != self._receive_timeout_s:
            self._events.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
            self._receive_timeout_s = timeout_s
        try:
            return self._events.recv()
        except zmq.Again:
            return None

    def end(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def is_stopped(self) -> bool:
        import psutil

        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def kill(self) -> None:
        if self._process.poll() is None:
            # Its own session: engines with worker processes lose them too.
            os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILLED_S)

    def log_lines(self, num_lines: int) -> list[str]:
        try:
            with (self.folder / LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
                self._log_tail = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            pass  # closed: the tail was read then
        return self._log_tail[-num_lines:]

    def close(self, grace_s: float) -> None:
        if self._closed:
            return
        try:
            self.send(wire.Close())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        finally:  # also after a Ctrl-C: no process stays behind
            self.kill()
            self._give_back()

    def _give_back(self) -> None:
        with self._send_lock:
            self._closed = True
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._commands.close()
        self._events.close()
        self._context.term()
        self.log_lines(0)
        shutil.rmtree(self.folder, ignore_errors=True)


def _private_folder() -> Path:
    """A new folder that no other user can enter (0700)."""
    folder = Path(tempfile.mkdtemp(prefix="llmlab-"))
    if len(str(folder / COMMANDS)) <= MAX_SOCKET_PATH:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="llmlab-", dir="/tmp"))


def _environment() -> dict[str, str]:
    """That of this process, with our defaults; the host finds the same llmlab."""
    environment = ENVIRONMENT | os.environ
    root = str(Path(llmlab.__file__).parent.parent)
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment
