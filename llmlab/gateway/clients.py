"""Clients: the Keys of a gateway, from the token of a request to the account of who sent it.

This file must not know routes or backends.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from llmlab.gateway.oidc import Verifier
from llmlab.gateway.quotas import Account
from llmlab.remote.keys import Key

WITHOUT_TOKEN = (
    "This gateway needs a token: send the header `Authorization: Bearer TOKEN` (the openai client: api_key=TOKEN). Who "
    "runs the gateway gives them out."
)


class Clients:
    """Who may ask. `tokens`: name -> token; a signed token is for the verifier."""

    def __init__(self, tokens: Mapping[str, Key], accounts: Mapping[str, Account], verifier: Verifier | None) -> None:
        self._tokens = [(key.secret.encode(), accounts[name]) for name, key in tokens.items()]
        self._accounts, self._verifier = accounts, verifier
        self._users: dict[str, Account] = {}

    async def who(self, token: bytes) -> Account | None:
        """The account of who has this token. Every one is compared, and takes as long as any other."""
        found: Account | None = None
        for known, account in self._tokens:
            if hmac.compare_digest(token, known):
                found = account
        if found is None and self._verifier is not None and (name := self._verifier.user_of(token)) is not None:
            return self._user(name)
        return found

    def named(self, name: str) -> Account | None:
        """The account of who has that name in the log; None for a stranger."""
        if (account := self._accounts.get(name)) is not None:
            return account
        return self._user(name) if self._verifier is not None else None

    def _user(self, name: str) -> Account:
        """Of a signed token. Rules and the log go by names: nobody may pass for the client of a key."""
        assert self._verifier is not None
        name = f"{name}@oidc" if name in self._accounts else name
        return self._users.setdefault(name, Account(name, self._verifier.spec))
