"""Prompts on their way into the engine: they arrive when it is their time, and become requests.

This file must not know steps or messages of the host.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from llmlab.engines.base import Engine
from llmlab.engines.messages import Prompt
from llmlab.errors import LlmlabError, RequestError
from llmlab.trace import Request


class Admission:
    """The queue before the engine, in order of arrival. One thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, Prompt] = {}  # their time has come
        self._later: dict[str, Prompt] = {}
        self._arrivals: list[tuple[float, str]] = []  # heap of (sent_s, request_id); withdrawn ones stay in it

    def warm_up(self) -> None:
        """Load what the first chat prompt needs: 0.1 s that nobody waits for while the user is typing it."""
        with contextlib.suppress(LlmlabError):  # a template that wants other messages says so when it gets them
            self._rendered(({"role": "user", "content": "Hello"},))

    def __len__(self) -> int:
        """Prompts that could go into the engine now."""
        return len(self._waiting)

    @property
    def is_pending(self) -> bool:
        """Prompts are here, or will arrive."""
        return bool(self._waiting or self._arrivals)

    @property
    def next_arrival_s(self) -> float | None:
        """time.monotonic() at which the next prompt arrives."""
        return self._arrivals[0][0] if self._arrivals else None

    def receive(self, prompts: Iterable[Prompt]) -> None:
        """Prompts from the notebook, sent now or later."""
        now_s = time.monotonic()
        for prompt in prompts:
            if prompt.sent_s <= now_s:
                self._waiting[prompt.request_id] = prompt
            else:
                self._later[prompt.request_id] = prompt
                heappush(self._arrivals, (prompt.sent_s, prompt.request_id))

    def arrive(self) -> None:
        """Let those in whose time has come."""
        now_s = time.monotonic()
        while self._arrivals and self._arrivals[0][0] <= now_s:
            _, request_id = heappop(self._arrivals)
            if (prompt := self._later.pop(request_id, None)) is not None:
                self._waiting[request_id] = prompt

    def withdraw(self, request_id: str) -> bool:
        """Take a prompt out again; False when it is not here."""
        return bool(self._waiting.pop(request_id, None) or self._later.pop(request_id, None))

    def take(self) -> Prompt:
        """The next prompt, out of the queue."""
        return self._waiting.pop(next(iter(self._waiting)))

    def request(self, prompt: Prompt) -> Request:
        """The prompt as the engine wants it: rendered and tokenized.

        Raises: RequestError for an empty prompt, ModelError when the chat template refuses the conversation.
        """
        text, token_ids = prompt.text, prompt.token_ids
        if token_ids is None:
            text = self._rendered(prompt.messages) if prompt.messages is not None else text
            token_ids = tuple(self._tokenized(text)) if text else ()
        if not token_ids:
            raise RequestError("The prompt is empty. Give it at least one word.")
        return Request(
            request_id=prompt.request_id,
            arrival_s=prompt.sent_s - self._engine.epoch_s,
            prompt_token_ids=token_ids,
            prompt_text=text,
            sampling=prompt.sampling,
            priority=prompt.priority,
            user=prompt.user,
            salt=prompt.salt,
            parent_id=prompt.parent_id,
        )

    def _rendered(self, messages: tuple[dict[str, Any], ...]) -> str:
        if not messages or not messages[-1].get("content"):
            return ""
        engine = self._engine
        if engine.chat_template is not None:
            from llmlab.models.chat import render_chat

            return render_chat(engine.chat_template, messages, engine.bos_token, engine.eos_token)
        if len(messages) > 1:
            raise RequestError(
                "This model has no chat template, so it knows no roles. Send one text, or write the whole "
                "conversation as text and send it with raw=True (`--raw-prompt`)."
            )
        return str(messages[0]["content"])

    def _tokenized(self, text: str) -> list[int]:
        token_ids, bos_token = self._engine.tokenize(text), self._engine.bos_token
        if not bos_token:
            return token_ids
        from llmlab.models.chat import without_second_bos

        return without_second_bos(text, token_ids, bos_token)
