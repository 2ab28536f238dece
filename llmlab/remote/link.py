"""RemoteLink: the way to an engine that runs elsewhere. A Connection takes it for a host; it asks a server instead.

What it tells of an answer is what can be seen from here: a step is what arrived at once. This file must not know any
kind of server.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from llmlab.engines import messages as wire
from llmlab.errors import EngineError, LlmlabError, RequestError
from llmlab.language import tr
from llmlab.remote.backend import Arrival, Backend, Piece
from llmlab.trace import FinishReason, Header, Request, Step, Token

# The process of an engine that is not on this machine.
NO_PROCESS = 2**31 - 1
# Where a server tells no token ids, equal pieces get equal numbers from here on: no vocabulary reaches so far.
FIRST_PIECE_ID = 2**31
END_S = 5.0


class RemoteLink:
    """A server, asked from a thread with an event loop of its own."""

    is_process = False
    pid = NO_PROCESS

    def __init__(self) -> None:
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        self._epoch_s = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._backend: Backend | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}  # request_id -> its answer
        self._calls: set[asyncio.Task[None]] = set()
        self._piece_ids: dict[str, int] = {}
        self._held: list[Step] = []  # since the loop last came to rest
        self._num_steps = 0
        self._log: list[str] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmlab remote", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The value of a coroutine, run where the answers are read. From any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def meet(self, opened: Coroutine[Any, Any, Backend]) -> Backend:
        """The server that is asked from now on; close() ends the connections to it."""
        self._backend = self.run(opened)
        return self._backend

    def open(self, header: Header) -> None:
        """All that must be known is known."""
        ready = wire.Ready(header, self._epoch_s, time.monotonic() - self._epoch_s)
        self._messages.put(wire.EVENT + wire.encode(ready))

    # ---- what a Connection does

    def send(self, command: wire.Command) -> None:
        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._obey, command)

    def receive(self, timeout_s: float) -> bytes | None:
        with contextlib.suppress(Empty):
            return self._messages.get(timeout=timeout_s)
        return None

    def end(self) -> str | None:
        return None  # a server that does not answer may be there again for the next request

    def is_stopped(self) -> bool:
        return False

    def kill(self) -> None:
        self.close(0.0)

    def log_lines(self, num_lines: int) -> list[str]:
        return self._log[-num_lines:]

    def close(self, grace_s: float) -> None:
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(max(grace_s, END_S))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)
        if not self._thread.is_alive():
            self._loop.close()

    # ---- in the loop

    async def _finish(self) -> None:
        for task in (*self._tasks.values(), *self._calls):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._calls, return_exceptions=True)
        if self._backend is not None:
            await self._backend.close()

    def _obey(self, command: wire.Command) -> None:
        match command:
            case wire.AddRequests(prompts):
                for prompt in prompts:
                    self._tasks[prompt.request_id] = self._loop.create_task(self._serve(prompt))
            case wire.AbortRequests(request_ids):
                for request_id in request_ids:
                    if (task := self._tasks.get(request_id)) is not None:
                        task.cancel()
            case wire.Call():
                task = self._loop.create_task(self._answer(command))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _serve(self, prompt: wire.Prompt) -> None:
        """One request, from when it is due to its end, whatever that is."""
        answer = _Answer(self, prompt)
        try:
            await asyncio.sleep(max(0.0, prompt.sent_s - time.monotonic()))
            assert self._backend is not None
            async for arrival in self._backend.ask(prompt):
                answer.take(arrival)
        except asyncio.CancelledError:
            answer.stop()
        except Exception as error:
            self._note(error)
            answer.fail(error)
        finally:
            del self._tasks[prompt.request_id]

    async def _answer(self, call: wire.Call) -> None:
        try:
            assert self._backend is not None
            asks: dict[str, Callable[..., Awaitable[Any]]]
            asks = {"tokenize": self._backend.tokenize, "pieces": self._backend.pieces}
            if call.method not in asks:
                raise EngineError(
                    tr("The server does not tell {what}(): load the model here for that.", what=call.method)
                )
            reply = wire.Reply(call.call_id, await asks[call.method](**call.arguments))
        except Exception as error:
            reply = wire.Reply(call.call_id, error=type(error).__name__, text=str(error))
        self.emit(reply)

    # ---- messages

    def emit(self, event: wire.Event) -> None:
        self._flush()
        self._messages.put(wire.EVENT + wire.encode(event))

    def step(self, request_id: str, pieces: tuple[Piece, ...] = (), end: FinishReason | None = None) -> None:
        """One more step: it leaves when the loop comes to rest, with others that arrived then."""
        if not self._held:
            self._loop.call_soon(self._flush)
        tokens = tuple(self._token(request_id, piece) for piece in pieces)
        finished: dict[str, FinishReason] = {request_id: end} if end is not None else {}
        step = Step(step=self._num_steps, t_s=time.monotonic() - self._epoch_s, tokens=tokens, finished=finished)
        self._held.append(step)
        self._num_steps += 1

    def request(self, prompt: wire.Prompt, arrival: Arrival, reported: dict[str, Any]) -> Request:
        return Request(
            request_id=prompt.request_id,
            arrival_s=prompt.sent_s - self._epoch_s,
            prompt_token_ids=arrival.prompt_token_ids or prompt.token_ids or (),
            prompt_text=prompt.text,
            sampling=prompt.sampling,
            priority=prompt.priority,
            user=prompt.user,
            salt=prompt.salt,
            extra={"reported": reported} if reported else {},
        )

    def _flush(self) -> None:
        if self._held:
            now_s = time.monotonic() - self._epoch_s
            self._messages.put(wire.STEPS + wire.encode([(now_s - step.t_s, step) for step in self._held]))
            self._held = []

    def _token(self, request_id: str, piece: Piece) -> Token:
        top = tuple((self._id(i, text), logprob, text) for i, logprob, text in piece.top)
        token_id = self._id(piece.token_id, piece.text)
        return Token(request_id=request_id, token_id=token_id, text=piece.text, logprob=piece.logprob, top=top)

    def _id(self, told: int | None, text: str) -> int:
        return told if told is not None else self._piece_ids.setdefault(text, FIRST_PIECE_ID + len(self._piece_ids))

    def _note(self, error: Exception) -> None:
        self._log = [*self._log[-99:], f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"]


class _Answer:
    """One request on its way through a link."""

    def __init__(self, link: RemoteLink, prompt: wire.Prompt) -> None:
        self._link, self._prompt = link, prompt
        self._request: Request | None = None
        self._is_over = False

    def take(self, arrival: Arrival) -> None:
        link, name = self._link, self._prompt.request_id
        if self._request is None:
            self._request = link.request(self._prompt, arrival, arrival.reported)
            link.emit(wire.Accepted((self._request,)))
        elif arrival.reported or arrival.prompt_token_ids:  # told later: the same request, with what is known now
            known = {**self._request.extra.get("reported", {}), **arrival.reported}
            ids = arrival.prompt_token_ids or self._request.prompt_token_ids
            extra = {"reported": known} if known else {}
            self._request = msgspec.structs.replace(self._request, extra=extra, prompt_token_ids=ids)
            link.emit(wire.Accepted((self._request,)))
        if arrival.pieces or arrival.finish_reason is not None:
            link.step(name, arrival.pieces, arrival.finish_reason)
            self._is_over = arrival.finish_reason is not None

    def stop(self) -> None:
        """It was aborted here; the server sees the connection end."""
        if self._request is None:
            self._link.emit(wire.Refused(self._prompt.request_id, tr("Stopped before it reached the engine.")))
        elif not self._is_over:
            self._link.step(self._prompt.request_id, end="abort")

    def fail(self, error: Exception) -> None:
        """The server refused it, failed on it, or is gone. What had come stays."""
        name, text = self._prompt.request_id, str(error)
        if self._is_over:
            return
        if self._request is None and isinstance(error, RequestError):
            self._link.emit(wire.Refused(name, text))
            return
        if self._request is None:
            self._request = self._link.request(self._prompt, Arrival(), {})
            self._link.emit(wire.Accepted((self._request,)))
        kind = type(error).__name__ if isinstance(error, LlmlabError) else "EngineError"
        self._link.emit(wire.Failed((name,), text, kind))
        self._link.step(name, end="abort")
