"""Answering: one HTTP request on the engine, followed from the event loop.

The thread that reads from the engine rings; the loop looks. This file must not know JSON or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import Result, TokenEvent
from llmlab.engines.run import Run
from llmlab.errors import LlmlabError
from llmlab.serve.asks import Ask
from llmlab.serve.failures import ApiError
from llmlab.serve.metrics import Metrics
from llmlab.serve.queueing import Queue


class Stay(Protocol):
    """Where a request is counted while it is on the engine."""

    def note(self, run: Run) -> None:
        """Something of it has come."""

    def leave(self) -> None:
        """All its answers have ended there, or it never got there. Called once."""


class QueueStay:
    """So many places in a queue. Raises: ApiError when it is full."""

    def __init__(self, queue: Queue, count: int) -> None:
        queue.enter(count)
        self._queue, self._count = queue, count

    def note(self, run: Run) -> None:
        pass

    def leave(self) -> None:
        self._queue.leave(self._count)


class Answering:
    """The answers to one request. Begins at once; `stay` is left at its end, whatever that is.

    Raises: ApiError when the engine is gone.
    """

    def __init__(self, handle: EngineHandle, ask: Ask, name: str, stay: Stay, metrics: Metrics) -> None:
        self._loop, self._came = asyncio.get_running_loop(), asyncio.Event()
        self.ask, self._stay, self._metrics = ask, stay, metrics
        self.names = _free_names(handle, name, ask.num_answers)
        self._is_counted = True
        try:
            self.run: Run = handle.answer(ask.requests(self.names), self._ring, **ask.options)
        except LlmlabError as error:
            self._leave()
            raise ApiError.of(error) from None
        except BaseException:
            self._leave()
            raise
        self._take_news()  # what came before there was a run to look at

    async def admitted(self) -> None:
        """Until the engine has taken all of it in. Raises: ApiError when it refused."""
        run = self.run
        while not (run.done or run.is_admitted):
            await self._news()
        for result in run.results:
            if result.error is not None:
                self.cancel()
                raise self._failure(result)

    async def done(self) -> list[Result]:
        """The whole answers. Raises: ApiError when one of them failed or was stopped."""
        while not self.run.done:
            await self._news()
        return self.checked()

    async def events(self) -> AsyncIterator[tuple[list[TokenEvent], list[int]]]:
        """What has come since the last time: tokens, and the numbers of the answers that ended with them."""
        num_seen, open_ = 0, set(range(self.ask.num_answers))
        while open_:
            reasons = self.run.finish_reasons  # first these: the tokens of what has ended have come
            tokens = self.run.tokens_since(num_seen)
            ended = [number for number in sorted(open_) if reasons[number] is not None]
            if tokens or ended:
                num_seen += len(tokens)
                open_.difference_update(ended)
                yield tokens, ended
            else:
                await self._news()

    def checked(self) -> list[Result]:
        """The results. Raises: ApiError when one of them failed or was stopped."""
        results = self.run.results
        for result in results:
            if result.finish_reason not in ("stop", "length"):
                raise self._failure(result)
        return results

    def cancel(self) -> None:
        """Nobody waits any more: end it on the engine."""
        if not self.run.done:
            self.run.cancel()

    def _failure(self, result: Result) -> ApiError:
        if self.run.died:
            return ApiError(503, result.error or "The engine has died.", code="engine_died")
        if result.error is not None:
            was_refused = not result.prompt_token_ids
            return ApiError(400 if was_refused else 500, result.error)
        return ApiError(503, "The answer was stopped where the engine is.", code="stopped")

    # ---- news

    def _ring(self) -> None:
        """In the reader's thread, or in that of whoever stops the run."""
        with contextlib.suppress(RuntimeError):  # the server has stopped: its loop is closed
            self._loop.call_soon_threadsafe(self._take_news)

    def _take_news(self) -> None:
        self._came.set()
        if not self._is_counted:
            return
        self._stay.note(self.run)
        if self.run.done:
            self._leave()
            self._metrics.note_ended(self.run.results)

    async def _news(self) -> None:
        await self._came.wait()
        self._came.clear()

    def _leave(self) -> None:
        self._is_counted = False
        self._stay.leave()


def _free_names(handle: EngineHandle, name: str, count: int) -> list[str]:
    """A name in the trace for each answer: that of the HTTP request for the first, then NAME.1, NAME.2, ...

    >>> from types import SimpleNamespace
    >>> _free_names(SimpleNamespace(has_request={"a"}.__contains__), "a", 2)
    ['a~2', 'a~2.1']
    """
    stem, number = name, 2
    while any(handle.has_request(taken) for taken in _names(stem, count)):
        stem, number = f"{name}~{number}", number + 1
    return _names(stem, count)


def _names(stem: str, count: int) -> list[str]:
    return [stem, *(f"{stem}.{number}" for number in range(1, count))]
