"""`llmlab serve MODEL`: load a model and serve it until Ctrl-C.

This file must not know HTTP.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from llmlab.cards import Card
from llmlab.engines import access
from llmlab.engines.handle import EngineHandle
from llmlab.engines.limits import check_limits
from llmlab.engines.loading import load
from llmlab.errors import EngineDied, EngineError
from llmlab.language import tr
from llmlab.serve.listening import check_place, raise_open_files
from llmlab.serve.server import MAX_OPEN, Server, ServerT, check_token, serve
from llmlab.serve.stopping import ended_by_signals, say_stopping


def serve_model(arguments: argparse.Namespace) -> None:
    """Until Ctrl-C or SIGTERM, then the engine is unloaded.

    Raises: LlmlabError when it cannot be served, EngineDied when its engine dies: who started this may start it again.
    """
    token = _token(arguments.token_env)
    check_limits(max_open=arguments.max_open)

    def start(handle: EngineHandle) -> Server:
        return serve(
            handle, host=arguments.host, port=arguments.port, token=token, tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key, max_open=MAX_OPEN if arguments.max_open is None else arguments.max_open,
        )  # fmt: skip

    serve_until_stopped(arguments, start, lambda server: server.card_of(arguments.token_env))


def serve_until_stopped(
    arguments: argparse.Namespace, start: Callable[[EngineHandle], ServerT], card: Callable[[ServerT], Card]
) -> None:
    """Load what the arguments name, start(handle), show the card. Ends and raises as serve_model() does."""
    with ended_by_signals():
        raise_open_files()
        check_place(arguments.host, arguments.port, arguments.tls_cert, arguments.tls_key)
        print(tr("Loading {model}.", model=arguments.model), flush=True)
        handle = load(
            arguments.model, arguments.engine, name=getattr(arguments, "as"), quant=arguments.quant,
            dtype=arguments.dtype, ctx=arguments.ctx, seqs=arguments.seqs, kv_tokens=arguments.kv_tokens,
        )  # fmt: skip
        with handle:
            server = start(handle)
            try:
                print(card(server), tr("Ctrl-C ends it."), sep="\n", flush=True)
                server.wait()
                raise EngineDied(handle.death or "")
            except KeyboardInterrupt:
                say_stopping()
            finally:
                server.stop()


def _token(variable: str | None) -> str | None:
    """Raises: EngineError when there is none, or one that will not do."""
    if variable is None:
        return None
    token = access.of_environment(variable)
    if not token:
        raise EngineError(
            tr(
                "The environment has no variable {name!r}. Leave --token-env out, and a token is made.",
                name=access.named(variable),
            )
        )
    check_token(token)
    return token
