"""Whose token it is, and that he is there now: every request of a class passes here.

This file must not know HTTP or routes.
"""

from __future__ import annotations

from typing import Protocol

from llmlab.classroom.quotas import Account, Accounts
from llmlab.classroom.register import Person, Register


class People(Protocol):
    """Who has which token."""

    async def person(self, token: bytes) -> Person | None:
        """None: nobody."""


class Registered:
    """Those of the register."""

    def __init__(self, register: Register) -> None:
        self._register = register

    async def person(self, token: bytes) -> Person | None:
        return self._register.person(token)


class AccountKeys:
    """The Keys of a class: `request.state.who` is the account of who asks."""

    def __init__(self, people: People, accounts: Accounts) -> None:
        self._people, self._accounts = people, accounts

    async def who(self, token: bytes) -> Account | None:
        person = await self._people.person(token)
        return self._accounts.of(person) if person is not None else None
