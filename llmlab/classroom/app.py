"""The routes of a class: those of llmlab.serve, each request in its turn and within the quotas of who asks; and /class.

    GET /class/me         what I have asked for, and how much of my quotas is used
    GET /class/students   the lecturer's list: who is there, and what each one has had
    GET /trace            the shared batch: watched.py

This file must not know tokens or files.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from llmlab.classroom.quotas import OUTPUT_WEIGHT, PROMPT_WEIGHT, Account, Accounts
from llmlab.classroom.turns import Turn, Turns
from llmlab.classroom.watched import Watched
from llmlab.engines.handle import EngineHandle
from llmlab.engines.run import Run
from llmlab.serve.answering import QueueStay, Stay
from llmlab.serve.app import Service
from llmlab.serve.asks import Ask
from llmlab.serve.failures import ApiError
from llmlab.serve.forms import Form
from llmlab.serve.metrics import Metrics
from llmlab.serve.queueing import Queue
from llmlab.serve.responses import as_json
from llmlab.serve.streaming import watched


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a person has had since the server began. Counts of answers, unless they say tokens."""

    name: str
    # seconds since the last request; None: none yet
    seen_s_ago: float | None = None
    watching: int = 0
    in_flight: int = 0
    waiting: int = 0
    asked: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    used: int
    limit: int


class Me(msgspec.Struct, frozen=True, kw_only=True):
    me: Row
    quotas: list[Quota]
    # students whose turn comes before mine
    ahead: int


class Present(msgspec.Struct, frozen=True, kw_only=True):
    students: list[Row]
    # answers of all: on the engine, how many fit there, waiting
    on_engine: int
    places: int
    waiting: int


class ClassStay:
    """One request from its turn to its end: its tokens are counted as they come."""

    def __init__(self, turn: Turn, place: Stay) -> None:
        self._turn, self._place = turn, place
        self._num_prompt = self._num_output = 0
        self._has_prompts = False

    def note(self, run: Run) -> None:
        num_prompt, num_output = self._num_prompt, run.num_tokens
        if not self._has_prompts and run.is_admitted:
            self._has_prompts = True
            num_prompt = sum(len(run.prompt_ids(index)) for index in range(self._turn.count))
        self.note_tokens(num_prompt - self._num_prompt, num_output - self._num_output)

    def note_tokens(self, num_prompt: int, num_output: int) -> None:
        """So many more."""
        if num_prompt or num_output:
            self._turn.account.note_tokens(num_prompt, num_output)
            self._num_prompt += num_prompt
            self._num_output += num_output

    def leave(self) -> None:
        cost = PROMPT_WEIGHT * self._num_prompt + OUTPUT_WEIGHT * self._num_output
        self._turn.leave(cost or None)
        self._place.leave()


class _UsageOnly(msgspec.Struct):
    usage: dict[str, int]


class ClassService(Service):
    """The service of a class. `names`: who is in it, for the list of the lecturer."""

    def __init__(
        self,
        handle: EngineHandle,
        queue: Queue,
        metrics: Metrics,
        *,
        accounts: Accounts,
        turns: Turns,
        names: Callable[[], list[str]],
        share_prefixes: bool,
    ) -> None:
        super().__init__(handle, queue, metrics, tracing=Watched(handle))
        self._accounts, self._turns, self._names = accounts, turns, names
        self._share_prefixes = share_prefixes

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            Route("/class/me", self.class_me, methods=["GET"]),
            Route("/class/students", self.class_students, methods=["GET"]),
        ]

    def cancel_all(self) -> None:
        self._turns.close()
        super().cancel_all()

    async def class_me(self, request: Request) -> Response:
        account, now_s = _account(request), time.monotonic()
        quotas = [Quota(name=w.name, used=w.used(now_s), limit=w.limit) for w in account.windows]
        if not account.person.is_lecturer:
            most = account.quotas.in_flight
            quotas = [Quota(name="in_flight", used=account.num_in_flight, limit=most), *quotas]
        return as_json(Me(me=_row(account, now_s), quotas=quotas, ahead=self._turns.ahead_of(account)))

    async def class_students(self, request: Request) -> Response:
        if not _account(request).person.is_lecturer:
            raise ApiError(403, "Only the lecturer sees who is there. Your own figures: GET /class/me.")
        return as_json(self.people())

    def people(self) -> Present:
        """Who is in the class, and who else has asked; who never came has no time."""
        now_s = time.monotonic()
        accounts = [account for account in self._accounts.all() if not account.person.is_lecturer]
        rows = {account.person.name: _row(account, now_s) for account in accounts}
        rows = {name: Row(name=name) for name in self._names()} | rows
        turns = self._turns
        students = [rows[name] for name in sorted(rows)]
        return Present(students=students, on_engine=turns.num_on, places=turns.num_places, waiting=turns.num_waiting)

    # ---- answers

    async def _answer(self, request: Request, ask: Ask, form_of: Callable[..., Form], model: str) -> Response:
        name = _account(request).person.name
        # An id that was changed because somebody else has it would tell so.
        request.state.name += f"~{secrets.token_hex(3)}"
        # With one salt for all, a hit in the prefix cache says that somebody else's prompt begins alike.
        salt = {} if self._share_prefixes else {"salt": f"{name}/{ask.options.get('salt', '')}"}
        return await super()._answer(
            request, replace(ask, options={**ask.options, "user": name, **salt}), form_of, model
        )

    async def embeddings(self, request: Request) -> Response:
        stay = await self._enter(request, 1)
        try:
            response = await super().embeddings(request)
            used = msgspec.json.decode(response.body, type=_UsageOnly).usage
            stay.note_tokens(used["prompt_tokens"], 0)
            return response
        finally:
            stay.leave()

    async def tokenize(self, request: Request) -> Response:
        await self._check_look_up(request)
        return await super().tokenize(request)

    async def detokenize(self, request: Request) -> Response:
        await self._check_look_up(request)
        return await super().detokenize(request)

    async def _check_look_up(self, request: Request) -> None:
        """Raises: ApiError where the vocabulary tells of others, or he has asked too much of it."""
        if self._handle.header.source == "simulated":
            raise ApiError(400, "The vocabulary of a simulated engine is what others have sent: it is not told.")
        _account(request).look_up(len(await request.body()))

    async def _enter(self, request: Request, count: int) -> ClassStay:
        """Within the quotas, and when it is his turn."""
        account = _account(request)
        account.check(count)
        place = QueueStay(self._queue, count)
        try:
            turn = self._turns.line_up(account, count)
            await _called(turn, request)
        except BaseException:
            place.leave()
            raise
        return ClassStay(turn, place)


async def _called(turn: Turn, request: Request) -> None:
    """Raises: ClientDisconnect when nobody waits for it any more."""
    is_gone = False

    def leave() -> None:
        nonlocal is_gone
        is_gone = not turn.called.done()
        turn.give_up()

    try:
        async with watched(request.receive, leave):
            await turn.wait()
    except asyncio.CancelledError:
        if is_gone:
            raise ClientDisconnect from None
        raise


def _account(request: Request) -> Account:
    """Of who asks: AccountKeys put it there."""
    account: Account = request.state.who
    return account


def _row(account: Account, now_s: float) -> Row:
    seen_s = account.seen_s
    return Row(
        name=account.person.name,
        seen_s_ago=None if seen_s is None else round(now_s - seen_s, 1),
        watching=account.num_watching,
        in_flight=account.num_in_flight,
        waiting=account.num_waiting,
        asked=account.num_asked,
        refused=account.num_refused,
        prompt_tokens=account.num_prompt_tokens,
        output_tokens=account.num_output_tokens,
    )
