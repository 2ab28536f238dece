"""Embeddings of texts, where the engine can make them.

This file must not know HTTP or JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llmlab.engines.handle import EngineHandle
from llmlab.errors import EngineError, RequestError


async def embedded(handle: EngineHandle, texts: Sequence[str | list[int]]) -> tuple[list[list[float]], int]:
    """A vector of length 1 for each text, and how many tokens they are together.

    Raises: RequestError on an engine that makes none; EngineDied.
    """
    vectors, num_tokens = [], 0
    for text in texts:
        token_ids = await asyncio.to_thread(handle.tokenize, text) if isinstance(text, str) else text
        num_tokens += len(token_ids)
        vectors.append(await asyncio.to_thread(_embed, handle, token_ids))
    return vectors, num_tokens


def _embed(handle: EngineHandle, token_ids: list[int]) -> list[float]:
    try:
        return [float(value) for value in handle.embed(token_ids)]
    except EngineError as error:
        if "has no embed()" not in str(error):
            raise
        raise RequestError(
            f"The {handle.engine} engine makes no embeddings. Load the model with `-e llamacpp` and serve that."
        ) from None
