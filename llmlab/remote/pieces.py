"""Pieces: the bytes of tokens as a server tells them. Each is asked for once.

llmlab's server has bytes. vLLM tells the text of tokens, and of a text its tokens as the tokenizer's files write them:
both together say what most of them are; the rest is asked for one by one. This file must not know HTTP.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from llmlab.errors import EngineError
from llmlab.language import tr
from llmlab.models.token_names import contents_of

MAX_ALONE = 100
# ask("tokenize", body) -> the reply
Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Pieces:
    """What one server has told."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[int, bytes] = {}

    async def of(self, token_ids: list[int]) -> list[bytes]:
        """The bytes of each. Raises: EngineError when too many of them can be had only one by one."""
        if not self._known.keys() >= set(token_ids):
            await self._learn(token_ids)
        return [self._known[i] for i in token_ids]

    async def _learn(self, token_ids: list[int]) -> None:
        told = await self._ask("detokenize", {"tokens": token_ids})
        if "token_bytes" in told:
            self._known.update(zip(token_ids, map(base64.b64decode, told["token_bytes"]), strict=True))
            return
        await self._read(told["prompt"])
        rest = [i for i in dict.fromkeys(token_ids) if i not in self._known]
        if len(rest) > MAX_ALONE:
            raise EngineError(tr("The server writes {count} of these tokens in a way of its own.", count=len(rest)))
        for i in rest:
            self._known[i] = (await self._ask("detokenize", {"tokens": [i]}))["prompt"].encode()

    async def _read(self, text: str) -> None:
        """What the tokens of a text are; they need not be those that made it."""
        asked = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
        told = await self._ask("tokenize", asked)
        if (contents := contents_of(told.get("token_strs") or (), text)) is not None:
            self._known.update(zip(told["tokens"], contents, strict=True))
