"""PromptTexts: the texts of the tokens of prompts, asked for a few at a time.

An engine tells them between two steps, so nobody should wait for the answer, and questions are kept small.
This file must not know stories or views.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from llmlab.engines.run import Run
from llmlab.errors import LlmlabError
from llmlab.trace import Request

MAX_TOKENS = 50_000  # of one question


class PromptTexts:
    """Requests of a run whose texts are not known yet. Every method may be called in any thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()

    def __bool__(self) -> bool:
        """There is something to ask."""
        return bool(self._waiting)

    def add(self, requests: Iterable[Request]) -> None:
        self._waiting.extend(requests)

    def clear(self) -> None:
        self._waiting.clear()

    def ask(self, num_tokens: int = MAX_TOKENS) -> list[tuple[Request, list[str]]]:
        """The texts of the next prompts, up to so many tokens, or of one prompt that is longer.

        Empty when the engine cannot tell them, or they are too many.
        """
        with self._lock:
            requests = self._next(num_tokens)
        ids = [i for request in requests for i in request.prompt_token_ids]
        if self._run.engine is None or not 0 < len(ids) <= MAX_TOKENS:
            return []
        texts: list[str] = []
        with suppress(LlmlabError):
            texts = [piece.decode(errors="replace") for piece in self._run.engine.pieces(ids)]
        found, first = [], 0
        for request in requests if texts else []:
            found.append((request, texts[first : first + len(request.prompt_token_ids)]))
            first += len(request.prompt_token_ids)
        return found

    def _next(self, num_tokens: int) -> list[Request]:
        requests: list[Request] = []
        while self._waiting:
            num_tokens -= len(self._waiting[0].prompt_token_ids)
            if requests and num_tokens < 0:
                break
            requests.append(self._waiting.popleft())
        return requests
