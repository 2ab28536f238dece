"""What clients get: the bodies of answers and of the chunks of a stream, in OpenAI's form.

This file must not know engines or HTTP.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# OpenAI's lowest log probability: JSON has no -inf.
LOWEST_LOGPROB = -9999.0


class Usage(msgspec.Struct, frozen=True):
    """In tokens. A prompt counts once, however many choices were made from it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, num_prompt_tokens: int, num_output_tokens: int) -> Usage:
        return cls(num_prompt_tokens, num_output_tokens, num_prompt_tokens + num_output_tokens)


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    # as llama-server adds it
    id: int


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]
    id: int


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    # where each token begins in the text of the choice, in characters
    text_offset: list[int]


FinishReason = Literal["stop", "length"]


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=False):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: ChatMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class CompletionChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None
    stop_reason: str | None = None
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    # in chunks: only in the last, and only for who asked
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    prompt_token_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["llmlab"] = "llmlab"
    # llmlab's own: what runs it
    engine: str
    quant: str | None = None
    max_model_len: int | None = None


class Models(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    # numbers, or float32 as base64
    embedding: list[float] | str


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: dict[str, int]


class Tokens(msgspec.Struct, frozen=True):
    """Of a text, in vLLM's form."""

    tokens: list[int]
    count: int
    max_model_len: int | None


class Text(msgspec.Struct, frozen=True):
    """Of token ids, in vLLM's form."""

    prompt: str
    # llmlab's own: those of each token, as base64; one may be half a character
    token_bytes: list[bytes]


def logprob_of(value: float | None) -> float:
    return LOWEST_LOGPROB if value is None else max(value, LOWEST_LOGPROB)


def sse(body: Any) -> bytes:
    """One event of a stream.

    >>> sse(Usage(1, 2, 3))
    b'data: {"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}\\n\\n'
    """
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
