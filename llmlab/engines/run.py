"""Run: one batch of requests, from the notebook's side. Filled by the connection's thread, read by any other.

The filling thread appends to lists, then rings a bell; who reads looks at the lists, then waits for the bell.
This file must not know sockets or the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from llmlab.engines.bell import Bell
from llmlab.engines.entry import Entry
from llmlab.engines.recorder import News
from llmlab.engines.result import Result, TokenEvent
from llmlab.errors import BrokenContract, EngineDied, LlmlabError, RequestError
from llmlab.trace import FinishReason, Header, Request, Token, Trace

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle

POLL_S = 0.02


class Run:
    """Requests that were sent together. Iterate for their tokens as they come, wait() for the results.

    `abort` tells the engine to stop, and says how many seconds it may take to confirm. `engine`: the handle it is from.
    `on_news` is called after anything that comes, mostly by the thread that reads: it may not wait, and must not raise.
    """

    title = ""  # what views call it, when it has a name

    def __init__(
        self,
        entries: Iterable[Entry],
        header: Header,
        *,
        abort: Callable[[Sequence[str]], float],
        trace: Callable[[Run], Trace],
        engine: EngineHandle | None = None,
        on_news: Callable[[], None] | None = None,
    ) -> None:
        self.engine, self._on_news = engine, on_news
        self._entries = {entry.request_id: entry for entry in entries}
        self.header, self._abort, self._cut_trace = header, abort, trace
        # Tokens in order of arrival: whose, and which of its own. No pairs, of which a large batch has a million, and
        # through which Python's garbage collector would go again and again.
        self._indexes: list[int] = []
        self._arrivals: list[Entry] = []  # appended to last: its length is the number of tokens that can be read
        self._results: dict[str, Result] = {}  # of what has ended
        self._open = set(self._entries)  # request ids
        self._num_refused = 0
        self._failure: LlmlabError | None = None
        self._died: str | None = None
        self._stopping = False
        self._num_waiting = 0  # calls of wait() and awaits that go on now
        self._bell = Bell()  # rings after each step
        self._end_bell = Bell()  # rings when all has ended: who waits for that need not wake for every token
        self._trace: Trace | None = None
        # Set by views: what they share.
        self.follower: object = None
        # Set by the connection: numbers of steps between which this run happened.
        self.first_step: int | None = None
        self.end_step: int | None = None

    # ---- what a user does

    @property
    def request_ids(self) -> list[str]:
        return list(self._entries)

    @property
    def done(self) -> bool:
        return not self._open

    @property
    def died(self) -> bool:
        """The engine died under it."""
        return self._died is not None

    @property
    def part(self) -> int:
        """Another number when a picture of it must begin anew: opening() is another one."""
        return 0

    @property
    def note(self) -> str:
        """What views say beside it; "" for nothing."""
        return self.engine.note_of(self) if self.engine is not None else ""

    @property
    def is_cut(self) -> bool:
        """It has ended, and its trace breaks off before: what a view says at its last step."""
        return self.done and self.engine is not None and self.engine.is_cut(self)

    @property
    def progress(self) -> tuple[int, int]:
        """Requests that have ended, and all of them."""
        return len(self._entries) - len(self._open), len(self._entries)

    @property
    def results(self) -> list[Result]:
        """One result a request, in the order of the prompts; partial (finish_reason None) while it runs."""
        return [self._result(entry) for entry in self._entries.values()]

    def result_of(self, index: int) -> Result:
        """results[index], without the others."""
        return self._result(list(self._entries.values())[index])

    @property
    def trace(self) -> Trace:
        """What the engine did between the arrival of the first request and the end of the last (so far)."""
        if not self.done:
            return self._cut_trace(self)
        if self._trace is None:
            self._trace = self._cut_trace(self)
        return self._trace

    def opening(self) -> tuple[Trace, int]:
        """The trace before its first step, with the KV cache as it is then; and the number of the step that is next."""
        return self.engine.opening_of(self) if self.engine is not None else (Trace(self.header), 0)

    def steps_since(self, number: int, known: Collection[str] = ()) -> News:
        """What came from step `number` on, for who follows it; nothing is rebuilt as it is for `trace`.

        `known`: ids of requests that it has.
        """
        return self.engine.news_of(self, number, known) if self.engine is not None else News([], [], number)

    @property
    def view(self) -> Any:
        """Its KV cache and its timeline: llmlab.watch(run)."""
        return sys.modules["llmlab"].watch(self)  # engines do not know views; the facade does

    @property
    def is_awaited(self) -> bool:
        """A cell waits for its end."""
        return self._num_waiting > 0

    def wait(self, timeout: float | None = None) -> list[Result]:
        """The results, when all requests have ended. After `timeout` seconds, or on Ctrl-C, the run is stopped.

        Raises: EngineDied; RequestError when every request was refused; what made the engine fail. The results stay
        in `results`.
        """
        self._num_waiting += 1
        try:
            if not self._end_bell.wait(lambda: self.done, timeout):
                self.stop()
        except BaseException:
            self.stop()
            raise
        finally:
            self._num_waiting -= 1
        return self._outcome()

    def __await__(self) -> Any:
        return self._until_done().__await__()

    async def _until_done(self) -> list[Result]:
        self._num_waiting += 1
        try:
            while not self.done:
                await asyncio.sleep(POLL_S)
        except asyncio.CancelledError:  # the Stop button, in an async cell
            self.stop()
            raise
        finally:
            self._num_waiting -= 1
        return self._outcome()

    def tokens_since(self, number: int) -> list[TokenEvent]:
        """What came after the first `number` tokens of the run, in order of arrival."""
        arrivals = self._arrivals[number:]
        return [entry.event(index) for entry, index in zip(arrivals, self._indexes[number:], strict=False)]

    @property
    def num_tokens(self) -> int:
        """Tokens that have come, of all its requests."""
        return len(self._arrivals)

    def prompt_ids(self, index: int) -> tuple[int, ...]:
        """The prompt of request `index` as the engine got it; empty until it is there."""
        request = list(self._entries.values())[index].request
        return request.prompt_token_ids if request is not None else ()

    def text_of(self, request_id: str, index: int) -> str | None:
        """The text of token `index` of an answer; None until it has come."""
        tokens = self._entries[request_id].tokens
        return tokens[index].text if index < len(tokens) else None

    @property
    def num_prompt_tokens(self) -> dict[str, int]:
        """Of each request whose prompt the engine has told; a connected one tells it with the first token."""
        told = {entry.request_id: entry.request for entry in self._entries.values()}
        return {name: len(request.prompt_token_ids) for name, request in told.items() if request is not None}

    @property
    def is_admitted(self) -> bool:
        """The engine has taken every request in, or refused it."""
        return all(entry.request is not None or entry.finish_reason for entry in self._entries.values())

    @property
    def finish_reasons(self) -> list[FinishReason | None]:
        """Of each request, in the order of the prompts; None while it runs. Its tokens have come when it has one."""
        return [entry.finish_reason for entry in self._entries.values()]

    def cancel(self) -> None:
        """stop() that does not wait: it ends when the engine says so."""
        self._stopping = True
        if unfinished := [e.request_id for e in self._entries.values() if e.finish_reason is None]:
            self._abort(unfinished)

    def stop(self) -> None:
        """End what still runs, on the engine too; what has come stays, with finish_reason "interrupted"."""
        self._stopping = True
        try:
            if unfinished := [e.request_id for e in self._entries.values() if e.finish_reason is None]:
                grace_s = self._abort(unfinished)
                self._end_bell.wait(lambda: self.done, grace_s)
        finally:
            for entry in self._entries.values():
                self._end(entry, "interrupted")
            self.ring()

    def __iter__(self) -> Iterator[TokenEvent]:
        """Every token of every request as it arrives, from the first one on.

        Raises: what wait() raises, after the last token.
        """
        try:
            for number in itertools.count():
                self._bell.wait(partial(self._has_come, number))
                if number >= len(self._arrivals):
                    break
                yield self._arrivals[number].event(self._indexes[number])
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.stop()
            raise
        self._outcome()

    def __repr__(self) -> str:
        ended, total = self.progress
        num_tokens = len(self._arrivals)
        return f"Run({ended} of {total} requests ended, {num_tokens} tokens)"

    # ---- what the connection does, in its thread

    def accept(self, request: Request, step_number: int) -> None:
        """It is in the engine now; the next step that comes has this number."""
        self._entries[request.request_id].request = request
        if self.first_step is None:
            self.first_step = step_number
        if self._on_news is not None:
            self._on_news()

    def add_token(self, token: Token, now_s: float) -> None:
        entry = self._entries[token.request_id]
        if entry.finish_reason is None:
            entry.tokens.append(token)
            entry.times_s.append(now_s - entry.sent_s)
            self._indexes.append(len(entry.tokens) - 1)
            self._arrivals.append(entry)

    def finish(self, request_id: str, reason: FinishReason, stopped_by: str | None = None) -> None:
        entry = self._entries[request_id]
        if entry.finish_reason is None:
            entry.stopped_by = stopped_by
            self._end(entry, "interrupted" if self._stopping and reason == "abort" else reason)

    def refuse(self, request_id: str, text: str) -> None:
        """The engine cannot serve this one, or was told to stop before it came that far."""
        if self._stopping:
            self._end(self._entries[request_id], "interrupted")
        else:
            self._num_refused += 1
            self._end(self._entries[request_id], "error", text)

    def fail(self, request_ids: Sequence[str], error: LlmlabError) -> None:
        """The engine broke them off."""
        if isinstance(error, BrokenContract):
            now = self.trace  # the step to come gives all their KV back
            told = tuple(msgspec.structs.replace(incident, text=str(error)) for incident in now.incidents)
            error.trace = replace(now, incidents=told)
        self._failure = error
        for request_id in request_ids:
            self._end(self._entries[request_id], "error", str(error))

    def die(self, text: str) -> None:
        self._died = text
        for entry in self._entries.values():
            self._end(entry, "error", text)
        self.ring()

    def ring(self) -> None:
        """Wake who waits: something has come."""
        self._bell.ring()
        if self.done:
            self._end_bell.ring()
        if self._on_news is not None:
            self._on_news()

    # ---- bookkeeping

    def _has_come(self, number: int) -> bool:
        """Token `number` is here, or will never be."""
        return self.done or len(self._arrivals) > number

    def _end(self, entry: Entry, reason: FinishReason, error: str | None = None) -> None:
        if entry.finish_reason is None:
            entry.error, entry.end_s = error, time.monotonic() - entry.sent_s
            entry.finish_reason = reason
            self._open.discard(entry.request_id)

    def _result(self, entry: Entry) -> Result:
        known = self._results.get(entry.request_id)
        if known is not None:
            return known
        result = entry.result(self.header, lambda: self.trace)
        if result.finish_reason is not None:
            self._results[entry.request_id] = result
        return result

    def _outcome(self) -> list[Result]:
        results = self.results
        if self._died is not None:
            raise EngineDied(self._died, results)
        if self._failure is not None:
            if isinstance(self._failure, EngineDied):
                self._failure.results = results
            raise self._failure
        if results and self._num_refused == len(results):
            raise RequestError(results[0].error or "")
        return results


class Stream(Run):
    """The run of one prompt, as an iterator: ending the loop over it early ends the answer too."""

    _iterator: Iterator[TokenEvent] | None = None

    @property
    def result(self) -> Result:
        """The answer, as far as it has come."""
        return self.results[0]

    def __iter__(self) -> Iterator[TokenEvent]:
        try:
            yield from super().__iter__()
        finally:
            self.close()

    def __next__(self) -> TokenEvent:
        if self._iterator is None:
            self._iterator = iter(self)
        return next(self._iterator)

    def close(self) -> None:
        """Stop the answer, if it still comes."""
        if not self.done:
            self.stop()
