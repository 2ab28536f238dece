"""Entry: what has come of one request, while it comes. A run has one for each prompt.

The thread that reads from the engine appends; whoever asks for a result reads. This file must not know runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmlab.engines.result import Result, TokenEvent
from llmlab.trace import FinishReason, Header, Request, Token, Trace


@dataclass(slots=True, eq=False)
class Entry:
    """One request of a run and what has come of it."""

    request_id: str
    sent_s: float  # time.monotonic()
    sampling: dict[str, Any]
    request: Request | None = None
    tokens: list[Token] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)  # arrivals, in seconds after sent_s
    finish_reason: FinishReason | None = None
    error: str | None = None
    stopped_by: str | None = None
    end_s: float | None = None

    def event(self, index: int) -> TokenEvent:
        """Its token `index` as it arrived."""
        token = self.tokens[index]
        return TokenEvent(token.text, token.token_id, token.logprob, self.times_s[index], token.top, self.request_id)

    def result(self, header: Header, trace: Callable[[], Trace]) -> Result:
        """The answer as far as it has come."""
        ended, num_tokens = self.finish_reason, len(self.times_s)  # in this order: a token may come meanwhile
        return Result(
            request_id=self.request_id,
            header=header,
            prompt_text=self.request.prompt_text if self.request else None,
            prompt_token_ids=self.request.prompt_token_ids if self.request else (),
            tokens=tuple(self.tokens[:num_tokens]),
            token_times_s=tuple(self.times_s[:num_tokens]),
            finish_reason=ended,
            error=self.error,
            stopped_by=self.stopped_by,
            sampling=self.sampling,
            e2e_s=self.end_s,
            reported=self.request.extra.get("reported", {}) if self.request else {},
            _trace=trace,
        )
