"""ChatForm and CompletionForm: tokens of the engine as answers in OpenAI's form, whole or in chunks.

This file must not know engines, HTTP or event loops.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from llmlab.engines.result import Result, TokenEvent
from llmlab.serve import replies
from llmlab.serve.asks import Ask
from llmlab.serve.pieces import Pieces
from llmlab.serve.replies import Usage

UNSET = msgspec.UNSET


class Form(Protocol):
    """How an answer looks. One object for each HTTP request."""

    def whole(self, results: Sequence[Result]) -> Any:
        """The answer, when it is complete."""

    def chunk(self, number: int, tokens: Sequence[TokenEvent], reason: Any, prompt_ids: Sequence[int]) -> Any:
        """What has come of answer `number`; None when nothing of it can be shown."""

    def last(self, usage: Usage) -> Any:
        """The chunk after the last, with what it took."""


class _Base:
    """What both forms share: who answers, under which id, and how far each choice is."""

    prefix: str

    def __init__(self, ask: Ask, name: str, model: str, pieces: Pieces) -> None:
        self._ask, self._pieces = ask, pieces
        self._head: dict[str, Any] = {"id": f"{self.prefix}-{name}", "created": int(time.time()), "model": model}
        self._offsets: dict[int, int] = {}  # answer -> characters shown so far
        self._chunk_usage: msgspec.UnsetType | None = None if ask.include_usage else UNSET

    @property
    def _with_logprobs(self) -> bool:
        return "logprobs" in self._ask.options

    def _ids(self, ids: Sequence[int]) -> list[int] | msgspec.UnsetType:
        return list(ids) if self._ask.return_token_ids else UNSET

    def _has_begun(self, number: int) -> bool:
        """Whether this answer had a chunk before; from now on it has."""
        begun = number in self._offsets
        self._offsets.setdefault(number, 0)
        return begun

    def _text_of(self, token_id: int) -> str:
        return self._pieces[token_id].decode(errors="replace")

    def _usage(self, results: Sequence[Result]) -> Usage:
        return usage_of(results, self._ask.num_choices)


class ChatForm(_Base):
    prefix = "chatcmpl"

    def whole(self, results: Sequence[Result]) -> replies.ChatCompletion:
        choices = [
            replies.ChatChoice(
                number,
                replies.ChatMessage(result.text),
                _reason(result.finish_reason),
                self._logprobs(events_of(result)),
                self._ids(result.token_ids),
            )
            for number, result in enumerate(results)
        ]
        prompt_ids = self._ids(results[0].prompt_token_ids)
        return replies.ChatCompletion(
            **self._head, choices=choices, usage=self._usage(results), prompt_token_ids=prompt_ids
        )

    def chunk(
        self, number: int, tokens: Sequence[TokenEvent], reason: Any, prompt_ids: Sequence[int]
    ) -> replies.ChatChunk | None:
        text, is_first = "".join(token.text for token in tokens), not self._has_begun(number)
        if not (text or reason or is_first or (tokens and (self._with_logprobs or self._ask.return_token_ids))):
            return None
        delta = replies.Delta("assistant", text) if is_first else replies.Delta(content=text or None)
        choice = replies.ChatChunkChoice(
            number,
            delta,
            _reason(reason),
            self._logprobs(tokens) if tokens else None,
            self._ids([token.token_id for token in tokens]),
        )
        ids = self._ids(prompt_ids) if is_first else UNSET
        return replies.ChatChunk(**self._head, choices=[choice], usage=self._chunk_usage, prompt_token_ids=ids)

    def last(self, usage: Usage) -> replies.ChatChunk:
        return replies.ChatChunk(**self._head, choices=[], usage=usage)

    def _logprobs(self, tokens: Sequence[TokenEvent]) -> replies.ChatLogprobs | None:
        if not self._with_logprobs:
            return None
        return replies.ChatLogprobs([self._logprob(token) for token in tokens])

    def _logprob(self, token: TokenEvent) -> replies.TokenLogprob:
        top = [
            replies.TopLogprob(self._text_of(i), replies.logprob_of(logprob), list(self._pieces[i]), i)
            for i, logprob, _ in token.top
        ]
        piece = self._pieces[token.token_id]
        text = piece.decode(errors="replace")
        return replies.TokenLogprob(text, replies.logprob_of(token.logprob), list(piece), top, token.token_id)


class CompletionForm(_Base):
    prefix = "cmpl"

    def whole(self, results: Sequence[Result]) -> replies.Completion:
        choices = [
            replies.CompletionChoice(
                number,
                result.text,
                _reason(result.finish_reason),
                self._logprobs(number, events_of(result)),
                result.stopped_by,
                self._ids(result.prompt_token_ids),
                self._ids(result.token_ids),
            )
            for number, result in enumerate(results)
        ]
        return replies.Completion(**self._head, choices=choices, usage=self._usage(results))

    def chunk(
        self, number: int, tokens: Sequence[TokenEvent], reason: Any, prompt_ids: Sequence[int]
    ) -> replies.Completion | None:
        text, is_first = "".join(token.text for token in tokens), not self._has_begun(number)
        if not (text or reason or (tokens and (self._with_logprobs or self._ask.return_token_ids))):
            return None
        choice = replies.CompletionChoice(
            number,
            text,
            _reason(reason),
            self._logprobs(number, tokens) if tokens else None,
            None,
            self._ids(prompt_ids) if is_first else UNSET,
            self._ids([token.token_id for token in tokens]),
        )
        return replies.Completion(**self._head, choices=[choice], usage=self._chunk_usage)

    def last(self, usage: Usage) -> replies.Completion:
        return replies.Completion(**self._head, choices=[], usage=usage)

    def _logprobs(self, number: int, tokens: Sequence[TokenEvent]) -> replies.CompletionLogprobs | None:
        if not self._with_logprobs:
            return None
        offset, offsets = self._offsets.get(number, 0), []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        self._offsets[number] = offset
        return replies.CompletionLogprobs(
            tokens=[self._text_of(token.token_id) for token in tokens],
            token_logprobs=[replies.logprob_of(token.logprob) for token in tokens],
            top_logprobs=[
                {self._text_of(i): replies.logprob_of(logprob) for i, logprob, _ in token.top} for token in tokens
            ],
            text_offset=offsets,
        )


def usage_of(results: Sequence[Result], num_choices: int) -> Usage:
    """A prompt counts once, however many choices were made from it."""
    num_prompt_tokens = sum(result.num_prompt_tokens for result in results[::num_choices])
    return Usage.of(num_prompt_tokens, sum(result.num_output_tokens for result in results))


def events_of(result: Result) -> list[TokenEvent]:
    return [
        TokenEvent(token.text, token.token_id, token.logprob, at_s, token.top, result.request_id)
        for token, at_s in zip(result.tokens, result.token_times_s, strict=True)
    ]


def _reason(reason: Any) -> Any:
    """OpenAI knows no other end than these two; others are told as errors."""
    return reason if reason in ("stop", "length") else None
