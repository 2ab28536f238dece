"""The routes of a gateway: OpenAI's, answered by its backends.

This file must not know sockets, threads or how a backend is chosen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmlab.gateway.asks import ROUTES, Body
from llmlab.gateway.config import Config
from llmlab.gateway.exchange import Exchange
from llmlab.gateway.forwarding import Begun, Forwarder
from llmlab.gateway.log import Entry, Log
from llmlab.gateway.metrics import GatewayMetrics
from llmlab.gateway.policy import Ask
from llmlab.gateway.quotas import Account
from llmlab.gateway.upstream import Upstream
from llmlab.serve.failures import ApiError
from llmlab.serve.responses import CLIENT_GONE, application, as_json
from llmlab.serve.streaming import EventStream, watched


class Gate:
    """What the routes do. Its methods are the endpoints."""

    def __init__(self, config: Config, forwarder: Forwarder, log: Log, metrics: GatewayMetrics) -> None:
        self._config, self._forwarder, self._log, self._metrics = config, forwarder, log, metrics
        self._since = int(time.time())

    def app(self, lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]]) -> Starlette:
        """`lifespan`: what runs beside the requests."""
        routes = [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            *(Route(path, self.answer, methods=["POST"]) for path in ROUTES),
            Route("/backends", self.backends, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        return application(routes, "GET /v1/models lists what can be asked.", lifespan)

    async def models(self, request: Request) -> Response:
        account = _account(request)
        names = [name for name in self._config.models if account.may_ask(name)]
        return as_json({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        return as_json(self._model(self._known(request.path_params["model"], _account(request))))

    async def answer(self, request: Request) -> Response:
        """A completion, a chat completion or embeddings."""
        account = _account(request)
        body = Body(request.url.path, await request.body())
        self._known(body.model, account)
        num_tokens, is_estimate = body.num_prompt_tokens(self._config.bytes_per_token)
        ask = Ask(body.model, num_tokens, is_estimate, body.max_tokens, account.name)
        exchange = Exchange(request.state.name, account, body, ask, self._note)
        try:
            account.enter(num_tokens)
        except ApiError as error:
            exchange.refuse(error)
            raise
        return await self._through(request, exchange)

    async def _through(self, request: Request, exchange: Exchange) -> Response:
        work = asyncio.ensure_future(self._forwarder.begin(exchange))

        def note_gone() -> None:
            exchange.end(CLIENT_GONE, "client_gone")
            work.cancel()

        try:
            async with watched(request.receive, note_gone):
                answer = await work
        except ApiError as error:
            exchange.end(error.status, error.reply.error.code)
            raise
        except asyncio.CancelledError:
            if exchange.has_ended:  # it was cancelled for that
                return Response(status_code=CLIENT_GONE)
            exchange.end(503, "stopped")
            raise
        except BaseException:
            exchange.end(500, "failed")
            raise
        backend = exchange.upstream.name if exchange.upstream else ""
        if isinstance(answer, Begun):
            response: Response = EventStream(self._forwarder.go_on(exchange, answer), note_gone)
        else:
            exchange.end(answer.status, None if answer.status == 200 else "refused")
            response = Response(answer.content, answer.status, media_type="application/json")
        response.headers["X-Llmlab-Backend"] = backend
        return response

    async def backends(self, request: Request) -> Response:
        """How each is: for people, and for dashboards."""
        return as_json({name: _shown(upstream) for name, upstream in self._forwarder.upstreams.items()})

    async def health(self, request: Request) -> Response:
        if all(upstream.standing.why_down is not None for upstream in self._forwarder.upstreams.values()):
            raise ApiError(503, "No backend can be asked. GET /backends says why.", code="no_backend")
        return as_json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def _known(self, model: str, account: Account) -> str:
        """Raises: ApiError (404) for a model that this client cannot ask."""
        names = [name for name in self._config.models if account.may_ask(name)]
        if model not in names:
            raise ApiError(
                404, f"The model {model[:200]!r} is not served here. This gateway has {', '.join(names)}.",
                param="model", code="model_not_found",
            )  # fmt: skip
        return model

    def _model(self, name: str) -> Mapping[str, object]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "llmlab-gateway"}

    def _note(self, entry: Entry) -> None:
        self._metrics.note(entry)
        try:
            self._log.write(entry)
        except OSError:  # a full disk is no reason to answer nobody; the figures tell of it
            self._metrics.note_unlogged()


def _account(request: Request) -> Account:
    """Of who sent this request: the door has let him in."""
    account: Account = request.state.who
    return account


def _shown(upstream: Upstream) -> dict[str, object]:
    standing = upstream.standing
    figures = standing.figures
    return {
        "up": standing.why_down is None, "why_down": standing.why_down, "num_open": standing.num_open,
        "num_running": figures.num_running, "num_waiting": figures.num_waiting, "kv_use": figures.kv_use,
    }  # fmt: skip
