"""Door: what every HTTP request passes before a route sees it: its id, the token, the limit of its body.

This file must not know engines or routes.
"""

from __future__ import annotations

import hmac
import re
import secrets
import traceback
from collections import deque
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmlab.language import english
from llmlab.serve.failures import ApiError
from llmlab.serve.responses import reply

# What a client may call its request; it stands in traces, logs and headers.
_NAME = re.compile(rb"[A-Za-z0-9._:/@+=-]{1,128}")
NUM_KEPT_FAILURES = 20
WITHOUT_TOKEN = (
    "This server needs its token: send the header `Authorization: Bearer TOKEN` (the openai client: api_key=TOKEN). "
    "Who started the server sees the token."
)


class Keys(Protocol):
    """Who may come in."""

    async def who(self, token: bytes) -> object | None:
        """Whose token it is, for the routes (`request.state.who`); None when it is nobody's.

        Takes as long for a token that is nearly right as for any other.
        """


class Counts(Protocol):
    """Who counts the answers."""

    def note_http(self, path: str, status: int) -> None: ...


class OneToken:
    """One token for all."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def who(self, token: bytes) -> object | None:
        return True if hmac.compare_digest(token, self._token) else None


class Door:
    """An ASGI application around another. `failures`: tracebacks of what should not have happened."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys, max_body_bytes: int, metrics: Counts, without_token: str = WITHOUT_TOKEN
    ) -> None:
        self._app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes
        self._keys, self._without_token = keys, without_token
        self.failures: deque[str] = deque(maxlen=NUM_KEPT_FAILURES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # uvicorn's, not a client's
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        headers = dict(scope["headers"])
        name = _name(headers.get(b"x-request-id"))
        state = scope.setdefault("state", {})
        state["name"] = name
        answer = _Answer(send, name, scope, self._metrics)
        try:
            state["who"] = await self._who(headers.get(b"authorization", b""))
            self._check_length(headers.get(b"content-length", b""))
            # What a client is told is read by programs, logs and people of any language, not by who started the server.
            with english():
                await self._app(scope, self._limited(receive), answer.send)
        except ApiError as error:
            await answer.refuse(error)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception:
            self.failures.append(traceback.format_exc())
            await answer.refuse(ApiError(500, "The server failed on this request. `Server.failures` has the reason."))

    async def _who(self, authorization: bytes) -> object:
        """Whose token that is. Raises: ApiError (401)."""
        kind, _, given = authorization.partition(b" ")
        who = await self._keys.who(given.strip()) if kind.lower() == b"bearer" else None
        if who is None:
            raise ApiError(401, self._without_token, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return who

    def _check_length(self, content_length: bytes) -> None:
        if content_length.isdigit() and int(content_length[:20]) > self._max_body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """receive() that refuses a body which turns out longer than its limit."""
        num_bytes = 0

        async def limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is over {self._max_body_bytes} bytes, the limit of this server. Send less.")


class _Answer:
    """The way back: the id goes along, and the status is counted."""

    def __init__(self, send: Send, name: str, scope: Scope, metrics: Counts) -> None:
        self._send, self._name, self._scope, self._metrics = send, name.encode(), scope, metrics
        self._has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._name)]}
            endpoint = self._scope.get("endpoint")
            # by function, not by path: a path is the client's, and there is no end of them
            self._metrics.note_http(getattr(endpoint, "__name__", "other"), message["status"])
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        if self._has_begun:
            return
        response = reply(error)
        await response(self._scope, _nothing, self.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _name(given: bytes | None) -> str:
    """The id of a request: the client's own where it is a plain word, else a new one."""
    if given is not None and _NAME.fullmatch(given):
        return given.decode()
    return secrets.token_hex(4)
