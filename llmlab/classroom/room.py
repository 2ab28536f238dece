"""classroom(): a loaded engine for a class, and Classroom, what runs then.

This file must not know routes.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from llmlab.cards import Card
from llmlab.classroom.app import ClassService, Present
from llmlab.classroom.hub import Behind, HubUsers, prefix_of_service
from llmlab.classroom.keys import AccountKeys, People, Registered
from llmlab.classroom.names import names_of
from llmlab.classroom.quotas import Accounts, Quotas
from llmlab.classroom.register import FOLDER, Register
from llmlab.classroom.turns import Turns
from llmlab.engines.handle import EngineHandle
from llmlab.engines.limits import check_limits
from llmlab.language import tr
from llmlab.serve.door import Keys
from llmlab.serve.metrics import Metrics
from llmlab.serve.server import MAX_BODY_BYTES, Server, opened

# Answers that run or wait: 200 students with 8 each, and some.
MAX_OPEN = 2000
# Of an engine that does not say how many requests it runs at once.
NUM_PLACES = 16
PRESENT_S = 120.0  # who has asked or watched within this time is there


class Classroom(Server):
    """A running class. Made by llmlab.classroom(); ends by stop(), or when its engine is unloaded. Tokens stay."""

    def __init__(
        self,
        handle: EngineHandle,
        listener: socket.socket,
        *,
        register: Register,
        quotas: Quotas,
        num_places: int,
        share_prefixes: bool,
        hub: bool,
        lecturers: Collection[str],
        **of_server: Any,
    ) -> None:
        self.register, self.quotas = register, quotas
        self._known: People = HubUsers(register, lecturers) if hub else Registered(register)
        self._prefix = prefix_of_service() if hub else ""
        self._accounts, self._turns = Accounts(quotas), Turns(num_places)
        self._share_prefixes = share_prefixes
        super().__init__(handle, listener, token=register.lecturer_token, **of_server)

    def _make_service(self, metrics: Metrics) -> ClassService:
        self._class = ClassService(
            self.handle, self._queue, metrics, accounts=self._accounts, turns=self._turns,
            names=lambda: self.register.names, share_prefixes=self._share_prefixes,
        )  # fmt: skip
        return self._class

    def _app(self) -> ASGIApp:
        return Behind(super()._app(), self._prefix)

    def _keys(self) -> Keys:
        return AccountKeys(self._known, self._accounts)

    # ---- what a lecturer does

    @property
    def people(self) -> Present:
        """Who is in the class, and what each one has had."""
        return self._class.people()

    @property
    def students(self) -> Card:
        """The same as a table: first who is there."""
        return students_card(self.people)

    def new_token(self, name: str) -> str:
        """For who has lost one; the old one is worth nothing from now on. Raises: EngineError for a stranger."""
        return self.register.new_token(name)

    def add(self, *names: str) -> list[str]:
        """Late comers: their tokens are in tokens.csv. Returns who is new. Raises: EngineError for what is no name."""
        return self.register.add(names_of(names))

    @property
    def card(self) -> Card:
        """What the lecturer needs at the beginning. No token: it may stand on a wall, or in the log of a Hub."""
        folder, quotas = self.register.folder, self.quotas
        told = [tr("{count} answers in flight", count=quotas.in_flight)]
        told += [tr("{count} tokens a minute", count=quotas.tokens_per_minute)] if quotas.tokens_per_minute else []
        told += [tr("{count} tokens an hour", count=quotas.tokens_per_hour)] if quotas.tokens_per_hour else []
        url, handed_out = self.url_outside, folder / "tokens.csv"
        rows = [
            ("URL", url),
            (tr("model"), self.handle.name),
            (tr("students"), str(len(self.register.names))),
            *([(tr("tokens to hand out"), str(handed_out))] if handed_out.exists() else []),
            (tr("your token"), str(folder / "lecturer.token")),
            (tr("each student"), ", ".join(told)),
            (tr("on the engine at once"), str(self._turns.num_places)),
        ]
        notes = [
            tr("A student: LLMLAB_CLASS_KEY=TOKEN in the environment, then `{line}`.", line=f"%llm class {url}"),
            tr(
                "Lost a token: `llmlab class --new-token NAME --folder {folder}`. Who is there: `llmlab class --who "
                "{url} --folder {folder}`.",
                folder=folder,
                url=url,
            ),
            *self._warnings(),
        ]
        if not self.register.names and isinstance(self._known, Registered):
            notes.insert(
                0, tr("Nobody is in it yet: `llmlab class --add NAME --folder {folder}`, while it runs.", folder=folder)
            )
        return Card(tr("{name} is open for a class", name=self.handle.name), (), tuple(rows), tuple(notes))

    def __repr__(self) -> str:
        state = "" if self.running else ", stopped"
        return f"Classroom({self.handle.name!r} at {self.url}, {len(self.register.names)} students{state})"


def classroom(
    handle: EngineHandle | None = None,
    *,
    students: int | str | Path | Iterable[str] = (),
    folder: str | Path = FOLDER,
    in_flight: int = 8,
    tokens_per_minute: int | None = None,
    tokens_per_hour: int | None = None,
    at_once: int | None = None,
    share_prefixes: bool = False,
    hub: bool = False,
    lecturers: Collection[str] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_open: int = MAX_OPEN,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Classroom:
    """Open a loaded engine, the current one if none is given, for a class; returns at once.

    `students`: how many, a file with a name on each line, or names. Who is new gets a token, in FOLDER/tokens.csv; who
    is in the folder already keeps his. `in_flight`, `tokens_per_minute`, `tokens_per_hour`: quotas of each student.
    `at_once`: answers on the engine (as many as it runs at once); the others wait, and who has had least goes first.
    `share_prefixes`: let students find each other's prompts in the prefix cache: faster where all begin alike, but a
    hit says that somebody else asked the same. `hub`: also take the tokens of the JupyterHub that started this as a
    service; `lecturers`: its users who see all. The rest: see serve().

    >>> room = llmlab.classroom(eng, students=30, port=8000); room.students    # doctest: +SKIP

    Raises: EngineError when the engine is gone, a name or file is wrong, the port is taken.
    """
    check_limits(
        in_flight=in_flight, tokens_per_minute=tokens_per_minute, tokens_per_hour=tokens_per_hour, at_once=at_once,
    )  # fmt: skip
    names = names_of(students)
    register = Register(folder)
    quotas = Quotas(in_flight, tokens_per_minute, tokens_per_hour)

    def made(handle: EngineHandle, listener: socket.socket, **of_server: Any) -> Classroom:
        return Classroom(
            handle, listener, register=register, quotas=quotas, share_prefixes=share_prefixes, hub=hub,
            num_places=at_once or handle.header.max_num_seqs or NUM_PLACES, lecturers=lecturers,
            max_body_bytes=max_body_bytes, **of_server,
        )  # fmt: skip

    room = opened(made, handle, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, max_open=max_open)
    try:
        register.add(names)  # who is in a class that did not open would be in the next one
    except BaseException:
        room.stop()
        raise
    return room


def students_card(people: Present) -> Card:
    """Who is there, first who was seen last."""
    order = sorted(people.students, key=lambda row: (row.seen_s_ago is None, row.seen_s_ago or 0.0, row.name))
    rows = tuple(
        (
            row.name,
            None if row.seen_s_ago is None else tr("{seconds} s ago", seconds=round(row.seen_s_ago)),
            row.watching, row.in_flight, row.asked, row.refused, row.prompt_tokens + row.output_tokens,
        )
        for row in order
    )  # fmt: skip
    num_here = sum(_is_here(row.seen_s_ago, row.watching) for row in people.students)
    title = tr("{count} of {total} are there", count=num_here, total=len(people.students))
    columns = (
        tr("name"), tr("last request"), tr("watches"), tr("in flight"), tr("answers"), tr("refused"), tr("tokens"),
    )  # fmt: skip
    engine = tr(
        "On the engine: {count} of {places} answers; {waiting} wait.",
        count=people.on_engine, places=people.places, waiting=people.waiting,
    )  # fmt: skip
    return Card(title, columns, rows, (engine,))


def _is_here(seen_s_ago: float | None, num_watching: int) -> bool:
    return num_watching > 0 or (seen_s_ago is not None and seen_s_ago < PRESENT_S)
