"""Pieces: the bytes of tokens, asked of the engine once. Log probabilities show them.

This file must not know JSON or HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import TokenEvent
from llmlab.errors import LlmlabError
from llmlab.serve.failures import ApiError


class Pieces:
    """What is known so far; learn() asks for the rest."""

    def __init__(self, handle: EngineHandle) -> None:
        self._handle = handle
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        return self._known[token_id]

    async def learn(self, tokens: Iterable[TokenEvent]) -> None:
        """All that these tokens and their alternatives are made of. Raises: ApiError when the engine is gone."""
        ids = {i for token in tokens for i in (token.token_id, *(top[0] for top in token.top))}
        if missing := sorted(ids - self._known.keys()):
            try:
                found = await asyncio.to_thread(self._handle.pieces, missing)
            except LlmlabError as error:
                raise ApiError.of(error) from None
            self._known.update(zip(missing, found, strict=True))
