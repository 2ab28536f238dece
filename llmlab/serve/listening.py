"""Where a server listens: the socket, and the files of its certificate.

This file must not know engines or HTTP.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmlab.errors import EngineError
from llmlab.language import tr

MAX_FILES = 65_536


def listen(host: str, port: int) -> socket.socket:
    """Raises: EngineError when the place is taken, or is none."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # what it accepts has it, too: no event of a stream waits for the next
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        raise EngineError(
            tr(
                "Nothing can listen at {host}:{port} ({error}). Choose another port, or 0 for any free one.",
                host=host,
                port=port,
                error=error,
            )
        ) from None


def raise_open_files() -> None:
    """Let this process have as many connections as it may: a shell begins at 1,024, and a class of 200 has more."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def closed_on_failure(listener: socket.socket, cert: str | Path | None, key: str | Path | None) -> Iterator[None]:
    """What is made on a socket comes up, or the socket is closed. Raises: EngineError for files that are no TLS."""
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        listener.close()
        raise EngineError(
            tr("{cert} and {key} are no certificate and its key ({error}).", cert=cert, key=key, error=error)
        ) from None
    except BaseException:
        listener.close()
        raise


def tls_files(cert: str | Path | None, key: str | Path | None) -> dict[str, Any]:
    if (cert is None) != (key is None):
        raise EngineError(tr("TLS needs both: a certificate (--tls-cert FILE) and its key (--tls-key FILE)."))
    return {} if cert is None else {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}
