"""Forwarder: sends a request to the backend that was decided on, and to the next one when nothing of it came back.

Nothing is asked twice once a word of the answer has gone to the client. This file must not know routes or quotas.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from weakref import WeakSet

import aiohttp

from llmlab.gateway.config import Config
from llmlab.gateway.events import Event, TooLong, events_of, usage_of
from llmlab.gateway.exchange import Exchange
from llmlab.gateway.policy import Decision, Standing, decide
from llmlab.gateway.upstream import Unserved, Upstream, chunks_of
from llmlab.serve import replies
from llmlab.serve.failures import ApiError

# A request that ends every engine that gets it must not go round.
MAX_SENT = 2
MAX_SAID = 300
STOPPED = "the gateway was stopped"
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that is all there, or the client's error."""

    status: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """A stream of which a backend has sent the first text, or its end: `events` goes on where `first` ends."""

    first: list[Event]
    events: AsyncIterator[list[Event]]


class Forwarder:
    """The backends of a gateway."""

    def __init__(self, config: Config, upstreams: Mapping[str, Upstream]) -> None:
        self.config, self.upstreams = config, upstreams
        self._session: aiohttp.ClientSession | None = None
        self._running: WeakSet[Exchange] = WeakSet()
        self._is_stopped = False

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "open() comes first"
        return self._session

    async def open(self) -> None:
        """Ask every backend how it is, once; from then on it is done beside the requests."""
        # A kept connection must be younger than what servers close (5 s: uvicorn): no request meets its end.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        await asyncio.gather(*(upstream.look(self.session) for upstream in self.upstreams.values()))

    def stop(self) -> None:
        """End what runs: each client gets an error that says so."""
        self._is_stopped = True
        for upstream in self.upstreams.values():
            upstream.note_gone(STOPPED)
        for exchange in list(self._running):
            if not exchange.has_ended:
                exchange.stop()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def decision(self, exchange: Exchange) -> Decision:
        """Where it goes now; who lost it before is left out."""
        standings = {name: upstream.standing for name, upstream in self.upstreams.items()}
        standings |= {name: Standing(why, was_tried=True) for name, why in exchange.tried.items()}
        model, config = self.config.models[exchange.body.model], self.config
        return decide(exchange.ask, model, config.backends, standings, config.currency)

    async def begin(self, exchange: Exchange) -> Whole | Begun:
        """The answer, or its beginning. Raises: ApiError when no backend has it."""
        self._running.add(exchange)
        lost: list[Unserved] = []
        while True:
            decision = self.decision(exchange)
            if decision.backend is None or sum(one.was_sent for one in lost) >= MAX_SENT:
                exchange.reason = decision.reason
                raise _nobody(exchange.body.model, decision, lost, self.config.poll_s)
            upstream = self.upstreams[decision.backend]
            exchange.go_to(upstream, decision.reason)
            try:
                return await upstream.unless_gone(self._from(upstream, exchange))
            except Unserved as unserved:
                if self._is_stopped:
                    raise ApiError(503, f"The request was ended: {STOPPED}.", code="stopped") from None
                exchange.move_on(unserved)
                lost.append(unserved)

    async def go_on(self, exchange: Exchange, begun: Begun) -> AsyncIterator[bytes]:
        """What the client gets of a stream; when the backend dies, the last event is an error that says so.

        Its line is in the log before the client has the end.
        """
        assert exchange.upstream is not None
        upstream = exchange.upstream
        why = "the stream ended before the answer did"
        try:
            async for events in _all(begun):
                content = _passed_on(exchange, events, upstream)
                if is_done := any(event.is_done or event.error for event in events):
                    exchange.end(200, next((event.error for event in events if event.error), None))
                if content:
                    yield content
                if is_done:
                    return
        except BROKEN as error:
            if exchange.has_ended:  # its client has gone
                return
            why = STOPPED if exchange.is_stopped else upstream.lost(error).why
        except TooLong:
            why = "an event without end"
        exchange.end(200, "stopped" if exchange.is_stopped else "backend_died")
        yield _broken_off(exchange, upstream, why)

    async def _from(self, upstream: Upstream, exchange: Exchange) -> Whole | Begun:
        """What this backend has to say. Raises: Unserved."""
        body = exchange.body
        there = self.config.models[body.model].backends[upstream.name]
        response = await upstream.ask(self.session, body.path, body.for_backend(there), exchange.request_id)
        exchange.hold(response)
        try:
            if response.status != 200 or not body.stream:
                return _whole(exchange, response.status, await response.read(), upstream)
            return await _beginning(events_of(chunks_of(response)))
        except BROKEN as error:
            if exchange.has_ended or exchange.is_stopped:  # it was closed here
                raise Unserved("nobody waits for it", was_sent=True) from None
            raise upstream.lost(error) from None
        except TooLong:
            raise Unserved("an event without end", was_sent=True) from None


def _whole(exchange: Exchange, status: int, content: bytes, upstream: Upstream) -> Whole:
    """An answer or an error, in OpenAI's form also where the backend has another one. Raises: Unserved."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if status != 200:
        if not (isinstance(answer, dict) and "error" in answer):
            said = content[:MAX_SAID].decode("utf-8", "replace")
            content = ApiError(status, f"The backend {upstream.name} refuses this (HTTP {status}): {said}").body
    elif not isinstance(answer, dict):
        raise Unserved("what it answers is no JSON object", was_sent=True)
    else:
        exchange.usage = usage_of(answer)
    return Whole(status, _hidden(content, upstream))


async def _beginning(events: AsyncIterator[list[Event]]) -> Begun:
    """Up to the first text: until then another backend may still take it. Raises: Unserved."""
    first: list[Event] = []
    async for some in events:
        first += some
        for event in some:
            if event.error is not None:
                raise Unserved(f"it failed: {event.error}", was_sent=True)
            if event.has_text or event.has_end or event.is_done:
                return Begun(first, events)
    raise Unserved("the stream ended before the answer did", was_sent=True)


async def _all(begun: Begun) -> AsyncIterator[list[Event]]:
    yield begun.first
    async for events in begun.events:
        yield events


def _passed_on(exchange: Exchange, events: list[Event], upstream: Upstream) -> bytes:
    """What of these events goes to the client; the usage only if he asked for it."""
    exchange.usage = next((event.usage for event in reversed(events) if event.usage), exchange.usage)
    exchange.note_text(sum(event.has_text for event in events))
    passed = (event for event in events if exchange.body.wants_usage or not event.is_usage_alone)
    return b"".join(_hidden(event.content, upstream) if event.error else event.content for event in passed)


def _broken_off(exchange: Exchange, upstream: Upstream, why: str) -> bytes:
    error = ApiError(
        503, f"The backend {upstream.name} broke the answer off after {exchange.num_events} pieces ({why}). What came "
        "is all there is. Ask again: another backend answers where one is left.",
        code="stopped" if exchange.is_stopped else "backend_died",
    )  # fmt: skip
    return replies.sse(error.reply) + replies.DONE


def _hidden(content: bytes, upstream: Upstream) -> bytes:
    """Without the backend's key, which it may repeat."""
    return upstream.key.hide(content.decode("utf-8", "replace")).encode() if upstream.key else content


def _nobody(model: str, decision: Decision, lost: list[Unserved], poll_s: float) -> ApiError:
    """What a client is told whom no backend serves."""
    if decision.is_too_long:
        return ApiError(
            400, f"No backend of {model!r} takes this: {decision.reason}. Send a shorter prompt.",
            code="context_length_exceeded",
        )  # fmt: skip
    if decision.backend is not None:
        return ApiError(
            503, f"{len(lost)} backends lost this request ({'; '.join(one.why for one in lost)}). It is not sent to "
            "another one: it may be what ends them.", code="backend_failed",
        )  # fmt: skip
    busy = [one.retry_s or 1 for one in lost if one.why.startswith("busy")]
    after_s = min(busy) if busy else math.ceil(poll_s)
    return ApiError(
        429 if busy else 503, f"No backend can serve {model!r} now: {decision.reason}. Try again in {after_s} s.",
        code="no_backend", headers={"Retry-After": str(after_s)},
    )  # fmt: skip
