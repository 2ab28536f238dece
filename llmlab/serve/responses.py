"""What every application here answers alike: JSON, its errors, and nothing to who has gone.

This file must not know engines, backends or routes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from llmlab.serve.failures import ApiError

# What nginx logs for a client that did not wait; nobody gets it, but the count of answers has it.
CLIENT_GONE = 499


def application(
    routes: Sequence[Route],
    no_route: str,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """`no_route`: where to look, for who asks for what is not served. `lifespan`: what runs beside the requests."""

    async def not_served(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = f"{request.method} {request.url.path[:200]} is not served here. {no_route}"
        return reply(ApiError(error.status_code, text, headers=error.headers))

    handlers: dict[Any, Any] = {ApiError: _refused, HTTPException: not_served, ClientDisconnect: _gone}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


def as_json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def reply(error: ApiError) -> Response:
    return Response(error.body, error.status, error.headers, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return reply(error)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
