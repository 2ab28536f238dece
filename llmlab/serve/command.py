"""`llmlab serve MODEL`: load a model and serve it until Ctrl-C.

This file must not know HTTP.
"""

from __future__ import annotations

import argparse
import os
import signal
from typing import NoReturn

from llmlab.engines.loading import load
from llmlab.errors import EngineError
from llmlab.serve.server import MAX_OPEN, serve


def serve_model(arguments: argparse.Namespace) -> None:
    """Until Ctrl-C or SIGTERM, then the engine is unloaded. Raises: LlmlabError when it cannot be served."""
    signal.signal(signal.SIGTERM, _interrupt)
    token = _token(arguments.token_env)
    print(f"Loading {arguments.model}.", flush=True)
    handle = load(
        arguments.model, arguments.engine, name=getattr(arguments, "as"), quant=arguments.quant, dtype=arguments.dtype,
        ctx=arguments.ctx, seqs=arguments.seqs, kv_tokens=arguments.kv_tokens,
    )  # fmt: skip
    with handle:
        server = serve(
            handle, host=arguments.host, port=arguments.port, token=token, tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key, max_open=arguments.max_open or MAX_OPEN,
        )  # fmt: skip
        print(server.card, "Ctrl-C ends it.", sep="\n", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("Stopping.", flush=True)
        finally:
            server.stop()


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise EngineError(f"The environment has no variable {variable!r}. Leave --token-env out, and a token is made.")
    return os.environ[variable]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
