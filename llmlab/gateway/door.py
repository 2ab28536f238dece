"""GatewayDoor: the door of `llmlab serve` with several keys: it knows who came in.

This file must not know backends or routes.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from llmlab.gateway.clients import Clients
from llmlab.gateway.metrics import GatewayMetrics
from llmlab.gateway.quotas import Account
from llmlab.serve.door import Door, OneToken
from llmlab.serve.metrics import Metrics

# Each request is a task of its own, and has a value of its own.
_account: ContextVar[Account] = ContextVar("_account")


class GatewayDoor(Door):
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, *, clients: Clients, max_body_bytes: int, metrics: GatewayMetrics) -> None:
        # of the metrics, a door wants note_http() alone
        super().__init__(app, keys=OneToken(""), max_body_bytes=max_body_bytes, metrics=cast(Metrics, metrics))
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _who(self, authorization: bytes) -> Account:
        account = self._clients.of(authorization)
        _account.set(account)
        return account


def account_of(request: Request) -> Account:
    """Of who sent this request; the door has let him in."""
    return _account.get()
