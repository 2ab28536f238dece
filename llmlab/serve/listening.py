"""Where a server listens: the socket, and the files of its certificate.

This file must not know engines or HTTP.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

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


def check_place(host: str, port: int, cert: str | Path | None, key: str | Path | None) -> None:
    """Before a model is loaded, which may take minutes. Raises: EngineError for what would not do then."""
    tls_files(cert, key)
    listen(host, port).close()


@contextmanager
def closed_on_failure(listener: socket.socket) -> Iterator[None]:
    """What is made on a socket comes up, or the socket is closed."""
    try:
        yield
    except BaseException:
        listener.close()
        raise


def tls_files(cert: str | Path | None, key: str | Path | None) -> dict[str, Any]:
    """What uvicorn takes. Raises: EngineError that says which of the files will not do, and why."""
    if cert is None and key is None:
        return {}
    if cert is None or key is None:
        raise EngineError(tr("TLS needs both: a certificate (--tls-cert FILE) and its key (--tls-key FILE)."))
    _check_certificate(cert)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: _refuse_password(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise EngineError(tr("{key} is not the key of {cert}. Name the one that it was made with.", key=key,
                                 cert=cert)) from None  # fmt: skip
        raise EngineError(
            tr("{file} is no key in PEM form ({error}): --tls-key FILE.", file=key, error=error.reason)
        ) from None
    except OSError as error:
        raise _unreadable(key, error) from None
    return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


def _check_certificate(cert: str | Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError as error:
        raise EngineError(
            tr("{file} is no certificate in PEM form ({error}): --tls-cert FILE.", file=cert, error=error.reason)
        ) from None
    except OSError as error:
        raise _unreadable(cert, error) from None


def _unreadable(file: str | Path, error: OSError) -> EngineError:
    return EngineError(
        tr("{file} cannot be read ({error}). docs/classroom.md has a line that makes a certificate and its key.",
           file=file, error=error.strerror)
    )  # fmt: skip


def _refuse_password(key: str | Path) -> NoReturn:
    """OpenSSL would ask for it at a terminal, which a service and a notebook do not have."""
    raise EngineError(
        tr("{key} has a password. Write the key to a file without one: `openssl pkey -in {key} -out plain.pem`.",
           key=key)
    )  # fmt: skip
