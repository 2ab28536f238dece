"""Exchange: one request from its arrival to its line in the log.

This file must not know routes or how a backend is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import aiohttp

from llmlab.gateway.asks import Body
from llmlab.gateway.config import Price
from llmlab.gateway.events import Usage
from llmlab.gateway.log import Attempt, Entry
from llmlab.gateway.policy import Ask
from llmlab.gateway.quotas import Account
from llmlab.gateway.upstream import Unserved, Upstream
from llmlab.serve.failures import ApiError


class Exchange:
    """What is known of a request so far. `note` gets its entry when it ends."""

    def __init__(self, request_id: str, account: Account, body: Body, ask: Ask, note: Callable[[Entry], None]) -> None:
        self.request_id, self.body, self.ask = request_id, body, ask
        self.reason = ""
        self.upstream: Upstream | None = None
        self.usage: Usage | None = None
        # with text in them: what was sent where the backend did not live to count it
        self.num_events = 0
        self._account, self._note = account, note
        self._attempts: list[Attempt] = []
        self._response: aiohttp.ClientResponse | None = None
        # among the open answers of its backend
        self._is_counted = False
        self._at_s, self._began_s = time.time(), time.monotonic()
        self._ttft_s: float | None = None
        self.has_ended = False
        # the gateway ends before the answer does
        self.is_stopped = False

    # ---- one backend after another

    def go_to(self, upstream: Upstream, reason: str) -> None:
        self.upstream, self.reason, self._is_counted = upstream, reason, True
        upstream.num_open += 1

    def hold(self, response: aiohttp.ClientResponse) -> None:
        """What is closed when it ends."""
        self._response = response
        if self.has_ended:  # the client went away meanwhile
            response.close()

    def move_on(self, unserved: Unserved) -> None:
        """The backend did not take it."""
        assert self.upstream is not None
        self._attempts.append(Attempt(self.upstream.name, unserved.why))
        self._release()
        self.upstream = None

    @property
    def tried(self) -> dict[str, str]:
        """Backend -> why it did not take it."""
        return {attempt.backend: attempt.why for attempt in self._attempts}

    # ---- its end

    def stop(self) -> None:
        """The gateway ends before the answer: nothing more comes from the backend."""
        self.is_stopped = True
        if self._response is not None:
            self._response.close()

    def note_text(self, num_events: int) -> None:
        """Pieces of the answer are on their way to the client."""
        if self._ttft_s is None and num_events:
            self._ttft_s = time.monotonic() - self._began_s
        self.num_events += num_events

    def refuse(self, error: ApiError) -> None:
        """It is over the quota: the account does not have it."""
        self.has_ended, self.reason = True, str(error)
        self._note(self._entry(None, error.status, error.reply.error.code))

    def end(self, status: int, error: str | None = None) -> None:
        """The first end counts: a client that goes away ends it too."""
        if self.has_ended:
            return
        self.has_ended = True
        upstream = self.upstream
        self._release()
        entry = self._entry(upstream, status, error)
        # the account was told of the prompt when it entered
        was_served = upstream is not None
        more = entry.num_prompt_tokens - self.ask.num_prompt_tokens + (entry.num_output_tokens or 0)
        self._account.leave(more if was_served else -self.ask.num_prompt_tokens, entry.cost)
        self._note(entry)

    def _entry(self, upstream: Upstream | None, status: int, error: str | None) -> Entry:
        usage = self.usage
        num_prompt = usage.num_prompt_tokens if usage else self.ask.num_prompt_tokens
        num_output = usage.num_output_tokens if usage else (self.num_events or None)
        price = upstream.spec.price if upstream is not None else None
        return Entry(
            at_s=self._at_s, request_id=self.request_id, client=self._account.name, model=self.body.model,
            stream=self.body.stream, backend=upstream.name if upstream else None, reason=self.reason,
            attempts=self._attempts, status=status, error=error, num_prompt_tokens=num_prompt,
            num_output_tokens=num_output, counted_by="reported" if usage else "estimated",
            cost=_cost(price, num_prompt, num_output, is_reported=usage is not None), ttft_s=self._ttft_s,
            e2e_s=time.monotonic() - self._began_s,
        )  # fmt: skip

    def _release(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
        if self.upstream is not None and self._is_counted:
            self.upstream.num_open -= 1
            self._is_counted = False


def _cost(price: Price | None, num_prompt: int, num_output: int | None, *, is_reported: bool) -> float | None:
    """By the backend's count, else by the gateway's; None where no price is known, or nothing came."""
    if price is None or (num_output is None and not is_reported):
        return None
    return price.of(num_prompt, num_output or 0)
