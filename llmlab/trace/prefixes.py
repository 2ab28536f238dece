"""Numbers for prefixes: two places in two requests have the same number when all tokens up to there are the same.

This file must not know KV caches.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmlab.trace.lifecycle import Life


class Prefixes:
    """Asked only where KV is shared, and linear in the tokens asked for: a trace without sharing pays nothing."""

    def __init__(self, lives: Mapping[str, Life]) -> None:
        self._lives = lives
        self._numbers: dict[tuple[int, int | str], int] = {}  # (number of the prefix before, token) -> number
        self._known: dict[str, list[int]] = {}  # request id -> number of its prefix up to each position

    def number(self, request_id: str, position: int) -> int | None:
        """The number of the tokens 0 to `position` of a request; None when the trace does not tell them all."""
        life = self._lives.get(request_id)
        if life is None or life.request is None:
            return None
        known = self._known.setdefault(request_id, [])
        while len(known) <= position:
            token_id = life.token_at(len(known))
            if token_id is None:
                return None
            # KV of another salt is never shared, so a prefix begins with it.
            before = known[-1] if known else self._number(-1, life.request.salt)
            known.append(self._number(before, token_id))
        return known[position]

    def differ(self, one: str, other: str, position: int) -> bool:
        """True when the trace shows that two requests have different tokens somewhere up to a position."""
        a, b = self.number(one, position), self.number(other, position)
        return a is not None and b is not None and a != b

    def _number(self, before: int, item: int | str) -> int:
        return self._numbers.setdefault((before, item), len(self._numbers))
