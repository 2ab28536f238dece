"""Frames: the steps of the engine as they go to those who watch. What is the same for all is made once for all.

A class of 200 is told every step 200 times, and most of a step is hidden alike from everybody: it is kept as JSON under
aliases, into which go the names and the tokens of the requests that are one's own. A test holds it to hiding.py.
This file must not know HTTP.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from functools import cached_property
from itertools import islice

import msgspec
from msgspec.structs import replace

from llmlab.classroom.hiding import Aliases, hidden_step, hidden_token, renamed_kv, seen_step
from llmlab.engines.handle import EngineHandle
from llmlab.trace import Request, Step, lines

# Steps that are kept for who is slow to take them.
NUM_KEPT = 512
# Who asks within this time gets what is there.
FRESH_S = 0.03

_json = msgspec.json.Encoder().encode


class Frame:
    """One step. `owned`: student -> ids of the requests in it that are his."""

    def __init__(self, step: Step, user_of: dict[str, str], alias: Aliases) -> None:
        self.step, self._alias = step, alias
        self.ids = frozenset(_ids_in(step))
        self.owned: dict[str, frozenset[str]] = {}
        for request_id in self.ids:
            if user := user_of.get(request_id):
                self.owned[user] = self.owned.get(user, frozenset()) | {request_id}

    @cached_property
    def whole(self) -> bytes:
        """For who sees all."""
        return lines.encode(self.step) + b"\n"

    @cached_property
    def hidden(self) -> bytes:
        """For who owns nothing in it."""
        return self._head + self._tokens(frozenset()) + self._tail

    def seen_by(self, name: str) -> bytes:
        """For a student."""
        own = self.owned.get(name)
        if own is None:
            return self.hidden
        if not own.isdisjoint(self.step.stopped_by):
            return lines.encode(seen_step(self.step, own, self.name_for(own))) + b"\n"
        head, tail = self._head, self._tail
        for request_id in own:
            ours, told = _json(self._alias(request_id)), _json(request_id)
            head, tail = head.replace(ours, told), tail.replace(ours, told)
        return head + self._tokens(own) + tail

    def name_for(self, own: frozenset[str]) -> _Names:
        return _Names(own, self._alias)

    # ---- its parts, in the order of the fields of a Step

    @cached_property
    def _head(self) -> bytes:
        return lines.encode(hidden_step(self.step, self._alias))[:-1]

    @cached_property
    def _tail(self) -> bytes:
        kv = self.step.kv
        return b"}\n" if kv is None else b',"kv":' + _json(renamed_kv(kv, self._alias)) + b"}\n"

    @cached_property
    def _hidden_tokens(self) -> list[bytes]:
        return [_json(hidden_token(token, self._alias(token.request_id))) for token in self.step.tokens]

    def _tokens(self, own: frozenset[str]) -> bytes:
        if not self.step.tokens:
            return b""
        told = self._hidden_tokens
        if own:
            told = [
                _json(replace(token, extra={})) if token.request_id in own else hidden
                for token, hidden in zip(self.step.tokens, told, strict=True)
            ]
        return b',"tokens":[' + b",".join(told) + b"]"


class _Names:
    """One's own requests by their names, others by an alias."""

    def __init__(self, own: frozenset[str], alias: Aliases) -> None:
        self._own, self._alias = own, alias

    def __call__(self, request_id: str) -> str:
        return request_id if request_id in self._own else self._alias(request_id)


class Frames:
    """The newest steps of an engine, read when somebody asks for them."""

    def __init__(self, handle: EngineHandle) -> None:
        self._handle, self.alias = handle, Aliases()
        self.user_of: dict[str, str] = {}  # request -> who asked
        self._requests: dict[str, Request] = {}  # that may be in a frame
        self._frames: deque[Frame] = deque()
        self._next_step = 0  # as they came: the number behind the last frame
        self._fresh_until_s = 0.0

    def restart(self) -> None:
        """Nobody has watched: what happened meanwhile is of no interest."""
        self._frames.clear()
        self._requests.clear()
        self.user_of.clear()
        opening, self._next_step = self._handle.opening()
        self._note(opening.request_records)

    def request(self, request_id: str) -> Request | None:
        """None for one whose record has not come."""
        return self._requests.get(request_id)

    def since(self, number: int) -> tuple[list[Frame], int] | None:
        """Frames from step `number` on, and the number to ask for next; None when they are not here any more."""
        self._catch_up()
        first = self._next_step - len(self._frames)
        if number < first:
            return None
        return list(islice(self._frames, number - first, None)), max(number, self._next_step)

    def _catch_up(self) -> None:
        if time.monotonic() < self._fresh_until_s:
            return
        news = self._handle.steps_since(self._next_step, self.user_of.keys())
        self._note(news.requests)
        if news.next_step - len(news.steps) > self._next_step:
            self._frames.clear()
        self._frames.extend(Frame(step, self.user_of, self.alias) for step in news.steps)
        self._next_step = news.next_step
        while len(self._frames) > NUM_KEPT:
            for request_id in self._frames.popleft().step.finished:
                self._requests.pop(request_id, None)
        self._fresh_until_s = time.monotonic() + FRESH_S

    def _note(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.user_of[request.request_id] = request.user
            self._requests[request.request_id] = request


def _ids_in(step: Step) -> set[str]:
    """Every request that the step names."""
    ids = {share.request_id for share in step.scheduled}
    ids.update(step.waiting, step.preempted, step.finished, step.prefix_hits, step.forked, step.forked.values())
    ids.update(token.request_id for token in step.tokens)
    if step.kv is not None:
        ids.update(step.kv.receivers, step.kv.freed)
    return ids
