"""Backend: how one kind of server is asked. Arrival: what came of an answer, at once.

This file must not know any kind of server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmlab.engines.messages import Prompt
from llmlab.trace import Capabilities, FinishReason


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as the server told it; a piece of text where it tells no tokens."""

    text: str
    # None: it was not told
    token_id: int | None = None
    logprob: float | None = None
    # (token_id, logprob, text), best first
    top: tuple[tuple[int | None, float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came together. `reported`: figures of the server itself, such as the number of its tokens."""

    pieces: tuple[Piece, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    reported: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself. None where it does not."""

    engine: str
    version: str
    model: str
    max_model_len: int | None
    quant: str | None
    capabilities: Capabilities
    # an id stands for the same token in every answer, and is that of the model
    tells_token_ids: bool


class Backend(Protocol):
    """One server. All but `about` is called in one event loop."""

    about: About

    def ask(self, prompt: Prompt) -> AsyncIterator[Arrival]:
        """The answer as it comes; the first arrival when the server has accepted, the last with a finish_reason.

        Raises: RequestError when the server refuses, EngineError when it fails, EngineDied when it does not answer or
        breaks off.
        """

    async def tokenize(self, text: str) -> list[int]:
        """Raises: EngineError where the server cannot."""

    async def pieces(self, token_ids: list[int]) -> list[bytes]:
        """The bytes of each token. Raises: EngineError where the server cannot tell them."""

    async def close(self) -> None:
        """Give connections back."""
