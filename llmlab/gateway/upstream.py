"""Upstream: one backend while the gateway runs: how it is, and a request to it.

This file must not know clients, quotas or which backend is best.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import aiohttp

from llmlab.gateway.config import Backend
from llmlab.gateway.figures import Figures, figures_of
from llmlab.gateway.policy import Standing
from llmlab.remote.address import base_of
from llmlab.remote.keys import Key

# A host that is gone does not answer at all: new requests must have moved within 2 s.
CONNECT_S, LOOK_S = 1.0, 0.8
# This many looks in a row must go unanswered: a busy server may miss one.
NUM_MISSED = 2
REFUSES_KEY, BUSY, NOT_FOUND = (401, 403), 429, 404
NO_MODELS = "no list of models at /v1/models"
NO_METRICS = (404, 405, 501)
MAX_RETRY_S = 60
ResultT = TypeVar("ResultT")


class Unserved(Exception):
    """A backend did not take a request, or lost it before a word of the answer: another one may try.

    `was_sent`: it had the request, and may have died of it. `retry_s`: when it has room again, if it said so.
    """

    def __init__(self, why: str, *, was_sent: bool, retry_s: int | None = None) -> None:
        super().__init__(why)
        self.why, self.was_sent, self.retry_s = why, was_sent, retry_s


class Upstream:
    """A backend and the connections to it."""

    def __init__(self, name: str, spec: Backend, key: Key) -> None:
        self.name, self.spec, self.key = name, spec, key
        self._url = base_of(spec.url)
        self.num_open = 0
        # what it says it has; None before it was asked
        self.models: list[str] | None = None
        self.figures = Figures()
        self._why_down: str | None = "not asked yet"
        self._num_missed = 0
        self._has_metrics = True
        # a look found nobody there
        self._is_gone = asyncio.Event()

    @property
    def standing(self) -> Standing:
        return Standing(self._why_down, num_open=self.num_open, figures=self.figures)

    def mark_down(self, why: str) -> None:
        """Until a look at it finds it well again."""
        self._why_down, self.figures = why, Figures()

    # ---- how it is

    async def keep_looking(self, session: aiohttp.ClientSession, period_s: float) -> None:
        """Until it is cancelled."""
        while True:
            await self.look(session)
            await asyncio.sleep(period_s)

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Ask for its figures, or, where it has none, whether it is there."""
        try:
            if self._has_metrics:
                status, content = await self._get(session, "/metrics")
                if status not in NO_METRICS:
                    self._note(status, figures_of(content))
                    return
                self._has_metrics = False
            self._note((await self._get(session, "/v1/models"))[0], Figures())
        except TimeoutError:
            self._num_missed += 1
            if self._num_missed >= NUM_MISSED:
                self.note_gone(f"no answer within {LOOK_S:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.note_gone(words(error))

    async def list_models(self, session: aiohttp.ClientSession) -> list[str]:
        """Their names there. Raises: Unserved."""
        try:
            status, content = await self._get(session, "/v1/models")
            if status != 200:
                raise Unserved(NO_MODELS if status == NOT_FOUND else _status_words(status), was_sent=False)
            return [str(model["id"]) for model in json.loads(content)["data"]]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unserved(words(error), was_sent=False) from None
        except (ValueError, KeyError, TypeError):
            raise Unserved(NO_MODELS, was_sent=False) from None

    def note_gone(self, why: str) -> None:
        """Nobody is there: who waits for an answer need not."""
        self.mark_down(why)
        self._is_gone.set()

    def _note(self, status: int, figures: Figures) -> None:
        self._num_missed = 0
        self._is_gone.clear()
        if status in REFUSES_KEY or status >= 500:
            self.mark_down(_status_words(status))
        elif status == NOT_FOUND:
            self.mark_down(NO_MODELS)
        elif figures.is_up is False:
            self.mark_down("it has no engine any more")
        else:
            self._why_down, self.figures = None, figures

    async def _get(self, session: aiohttp.ClientSession, path: str) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        async with session.get(
            self._url + path, headers=self._headers, timeout=timeout, allow_redirects=False
        ) as response:
            return response.status, await response.read()

    # ---- a request

    async def ask(
        self, session: aiohttp.ClientSession, path: str, body: bytes, request_id: str
    ) -> aiohttp.ClientResponse:
        """The answer to a request, as far as its head. The caller closes it.

        Raises: Unserved when it was not taken; then the backend is taken for down where it is.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self.spec.timeout_s)
        headers = {**self._headers, "Content-Type": "application/json", "X-Request-Id": request_id}
        try:
            response = await session.post(
                self._url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self.lost(error) from None
        is_clients_fault = 400 <= response.status < 500 and response.status not in (BUSY, NOT_FOUND, *REFUSES_KEY)
        if response.status != 200 and not is_clients_fault:
            response.close()
            raise self._refusal(response)
        return response

    async def unless_gone(self, work: Awaitable[ResultT]) -> ResultT:
        """What `work` gives. Raises: Unserved as soon as a look finds that nobody is there: a host that hangs."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self._is_gone.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Unserved(self._why_down or "it is gone", was_sent=True)
            return task.result()
        finally:
            gone.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def lost(self, error: Exception) -> Unserved:
        """A connection that failed: what to say of it. The backend is down, unless it is only slow."""
        why = words(error, self.spec.timeout_s)
        if not isinstance(error, TimeoutError) or isinstance(error, aiohttp.ConnectionTimeoutError):
            self.mark_down(why)
        never_connected = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        return Unserved(why, was_sent=not never_connected)

    def _refusal(self, response: aiohttp.ClientResponse) -> Unserved:
        status = response.status
        if status in REFUSES_KEY or status > 500:
            self.mark_down(_status_words(status))
        after = response.headers.get("Retry-After", "")
        retry_s = min(int(after[:9]), MAX_RETRY_S) if after.isdigit() else None
        return Unserved(_status_words(status), was_sent=status >= 500, retry_s=retry_s if status == BUSY else None)

    @property
    def _headers(self) -> dict[str, str]:
        wanted = {"Accept-Encoding": "identity"}
        return {**wanted, "Authorization": f"Bearer {self.key.secret}"} if self.key else wanted


async def chunks_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The pieces of a body as they arrive."""
    async for chunk in response.content.iter_any():
        yield chunk


def words(error: Exception, timeout_s: float = LOOK_S) -> str:
    """What happened to a connection, without addresses and without what was said over it."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, TimeoutError):
        return f"nothing for {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate cannot be trusted"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS: http instead of https?"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _of_system(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, OSError) and error.strerror:
        return _of_system(error)
    return type(error).__name__


def _of_system(error: OSError) -> str:
    """In the words of the system: asyncio's own have an address in them. Numbers below 0 are those of name look-ups."""
    number = error.errno or 0
    return ((os.strerror(number) if number > 0 else error.strerror) or "no connection").lower()


def _status_words(status: int) -> str:
    if status in REFUSES_KEY:
        return f"it refuses its key, HTTP {status}"
    return {BUSY: "busy, HTTP 429", NOT_FOUND: "it does not have the model, HTTP 404"}.get(status, f"HTTP {status}")
