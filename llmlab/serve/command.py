"""`llmlab serve MODEL`: load a model and serve it until Ctrl-C.

This file must not know HTTP.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from llmlab.cards import Card
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import EngineDied, EngineError
from llmlab.language import tr
from llmlab.serve.listening import raise_open_files
from llmlab.serve.server import MAX_OPEN, Server, ServerT, serve


def serve_model(arguments: argparse.Namespace) -> None:
    """Until Ctrl-C or SIGTERM, then the engine is unloaded.

    Raises: LlmlabError when it cannot be served, EngineDied when its engine dies: who started this may start it again.
    """
    token = _token(arguments.token_env)

    def start(handle: EngineHandle) -> Server:
        return serve(
            handle, host=arguments.host, port=arguments.port, token=token, tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key, max_open=arguments.max_open or MAX_OPEN,
        )  # fmt: skip

    serve_until_stopped(arguments, start, lambda server: server.card_of(arguments.token_env))


def serve_until_stopped(
    arguments: argparse.Namespace, start: Callable[[EngineHandle], ServerT], card: Callable[[ServerT], Card]
) -> None:
    """Load what the arguments name, start(handle), show the card. Ends and raises as serve_model() does."""
    signal.signal(signal.SIGTERM, _interrupt)
    raise_open_files()
    print(tr("Loading {model}.", model=arguments.model), flush=True)
    handle = load(
        arguments.model, arguments.engine, name=getattr(arguments, "as"), quant=arguments.quant, dtype=arguments.dtype,
        ctx=arguments.ctx, seqs=arguments.seqs, kv_tokens=arguments.kv_tokens,
    )  # fmt: skip
    with handle:
        server = start(handle)
        print(card(server), tr("Ctrl-C ends it."), sep="\n", flush=True)
        try:
            server.wait()
            raise EngineDied(handle.death or "")
        except KeyboardInterrupt:
            print(tr("Stopping."), flush=True)
        finally:
            server.stop()


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise EngineError(
            tr("The environment has no variable {name!r}. Leave --token-env out, and a token is made.", name=variable)
        )
    return os.environ[variable]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
