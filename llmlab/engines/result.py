"""Result: one answer, with what it took. TokenEvent: one token of it, while it streams.

This file must not know how an answer reached the notebook.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from llmlab.trace import FinishReason, Header, Token, Trace


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token as it arrived. `t_s` counts from when its request was sent, so the first one is the TTFT."""

    text: str
    token_id: int
    logprob: float | None
    t_s: float
    # The most likely tokens there: (token_id, logprob, text), best first.
    top: tuple[tuple[int, float, str], ...]
    request_id: str


@dataclass(frozen=True)
class Result:
    """One answer. `str(result)` is its text; times are those of the notebook, the trace has the engine's own."""

    request_id: str
    header: Header
    prompt_text: str | None = None
    prompt_token_ids: tuple[int, ...] = ()
    tokens: tuple[Token, ...] = ()
    # When each token arrived, in seconds after the request was sent.
    token_times_s: tuple[float, ...] = ()
    # None while it still runs; "interrupted" = stopped from the notebook.
    finish_reason: FinishReason | None = None
    # Why there is no whole answer, when finish_reason is "error".
    error: str | None = None
    # The stop string that ended it; it is not part of the text.
    stopped_by: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    # From sent to the end, as seen here; None while it runs.
    e2e_s: float | None = None
    # What a server said of it, where the engine is remote: num_prompt_tokens, num_output_tokens, durations.
    reported: Mapping[str, Any] = field(default_factory=dict)
    _trace: Callable[[], Trace] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token.token_id for token in self.tokens)

    @property
    def logprobs(self) -> tuple[float | None, ...]:
        """Natural log of each token's probability; None where it was not asked for (`logprobs=0`)."""
        return tuple(token.logprob for token in self.tokens)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids) or int(self.reported.get("num_prompt_tokens", 0))

    @property
    def num_output_tokens(self) -> int:
        return len(self.tokens)

    @property
    def seed(self) -> int | None:
        return self.sampling.get("seed")

    @property
    def ttft_s(self) -> float | None:
        """From sent to the first token's arrival in the notebook, in seconds; None without a token."""
        return self.token_times_s[0] if self.token_times_s else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Every gap between the arrivals of two tokens, in seconds."""
        return tuple(after - before for before, after in pairwise(self.token_times_s))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens after the first per second; None with fewer than two, or when they came all at once."""
        times = self.token_times_s
        if len(times) < 2 or times[-1] <= times[0]:
            return None
        return (len(times) - 1) / (times[-1] - times[0])

    @property
    def trace(self) -> Trace:
        """What the engine did from the arrival of this answer's run to its end. Raises: LookupError without a run."""
        if self._trace is None:
            raise LookupError(f"{self.request_id} belongs to no run, so there is no trace")
        return self._trace()

    @property
    def footer(self) -> str:
        """One line of engine, model, seed, tokens and times; what was not measured is a dash."""
        header = self.header
        model = " ".join(filter(None, [header.model, header.quant]))
        ttft_ms = None if self.ttft_s is None else self.ttft_s * 1000
        parts = [
            f"{header.engine} {header.engine_version}".strip(),
            model or "–",
            f"seed {'–' if self.seed is None else self.seed}",
            f"{self.num_prompt_tokens}+{self.num_output_tokens} tokens",
            f"TTFT {_number(ttft_ms)} ms",
            f"{_number(self.tokens_per_s)} tok/s",
        ]
        if self.finish_reason in ("interrupted", "abort", "error"):
            parts.append(self.finish_reason)
        return " · ".join(parts)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle keeps: all but the way to the trace, which lives in this notebook."""
        return self.__dict__ | {"_trace": None}

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return format(self.text, spec)

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.text, self.error, f"[{self.footer}]"]))

    def _repr_html_(self) -> str:
        # Words of a model are data: they reach the page as text, whatever they say.
        parts = [f'<div style="white-space: pre-wrap">{html.escape(self.text)}</div>']
        if self.error:
            parts.append(f'<div style="white-space: pre-wrap; color: #b3261e">{html.escape(self.error)}</div>')
        parts.append(f'<div style="opacity: 0.65; font-size: 85%">{html.escape(self.footer)}</div>')
        return "".join(parts)


def _number(value: float | None) -> str:
    """Two digits at least, none behind the point from 10 on.

    >>> _number(78.4), _number(3.14), _number(None)
    ('78', '3.1', '–')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
