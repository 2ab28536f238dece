"""Clients: from the token of a request to the account of who sent it.

This file must not know routes or backends.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from llmlab.gateway.oidc import Verifier
from llmlab.gateway.quotas import Account
from llmlab.remote.keys import Key
from llmlab.serve.failures import ApiError


class Clients:
    """Who may ask. `tokens`: name -> token; a signed token is for the verifier."""

    def __init__(self, tokens: Mapping[str, Key], accounts: Mapping[str, Account], verifier: Verifier | None) -> None:
        self._tokens = [(key.secret.encode(), accounts[name]) for name, key in tokens.items()]
        self._verifier = verifier
        self._users: dict[str, Account] = {}

    def of(self, authorization: bytes) -> Account:
        """The account behind an Authorization header. Raises: ApiError (401).

        Every token is compared, in a time that does not depend on how much of it is right.
        """
        kind, _, given = authorization.partition(b" ")
        given = given.strip()
        found: Account | None = None
        for token, account in self._tokens:
            if hmac.compare_digest(given, token):
                found = account
        if kind.lower() == b"bearer":
            if found is not None:
                return found
            if self._verifier is not None and (name := self._verifier.user_of(given)) is not None:
                return self._user(name)
        raise ApiError(
            401,
            "This gateway needs a token: send the header `Authorization: Bearer TOKEN` (the openai client: "
            "api_key=TOKEN). Who runs the gateway gives them out.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _user(self, name: str) -> Account:
        assert self._verifier is not None
        return self._users.setdefault(name, Account(name, self._verifier.spec))
