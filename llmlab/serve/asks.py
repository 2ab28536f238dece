"""From a body to what the engine is asked: prompts, sampling, how many choices.

This file must not know HTTP.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec

from llmlab.serve.bodies import (
    Body,
    ChatBody,
    CompletionBody,
    EmbeddingsBody,
    Ids,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    Prompts,
)
from llmlab.serve.failures import ApiError
from llmlab.trace import Header

MAX_SEED = 2**32
MAX_DEPTH = 64  # of a JSON schema
# A completion without max_tokens: OpenAI's default. A chat goes on until it ends, or its room does.
COMPLETION_TOKENS = 16
# Whoever wants JSON gets an object with any content.
ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Ask:
    """What one HTTP request wants of the engine."""

    prompts: tuple[Any, ...]
    # answers to each prompt
    num_choices: int
    # keyword arguments of EngineHandle.answer()
    options: dict[str, Any]
    seed: int
    stream: bool
    include_usage: bool
    return_token_ids: bool

    def requests(self, names: list[str]) -> list[dict[str, Any]]:
        """A prompt for each answer, under its name: all choices of the first prompt, then those of the next."""
        of_choice = [(prompt, choice) for prompt in self.prompts for choice in range(self.num_choices)]
        return [
            {"prompt": prompt, "seed": (self.seed + choice) % MAX_SEED, "request_id": name}
            for (prompt, choice), name in zip(of_choice, names, strict=True)
        ]

    @property
    def num_answers(self) -> int:
        return len(self.prompts) * self.num_choices


def of_chat(body: ChatBody, header: Header) -> Ask:
    """Raises: ApiError for what contradicts itself, or this engine cannot do."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
    max_tokens = body.max_completion_tokens or body.max_tokens or header.max_model_len
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _ask(body, (_conversation(body.messages),), header, max_tokens=max_tokens, logprobs=logprobs)


def of_completion(body: CompletionBody, header: Header) -> Ask:
    """Raises: ApiError for what contradicts itself, or this engine cannot do."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError(400, f"best_of is {body.best_of}; only best_of = n can be served.", param="best_of")
    prompts, max_tokens = prompts_of(body.prompt, "prompt"), body.max_tokens or COMPLETION_TOKENS
    return _ask(body, prompts, header, max_tokens=max_tokens, logprobs=body.logprobs, raw=True)


def prompts_of(given: str | list[Any], field: str) -> tuple[Any, ...]:
    """One text, one list of token ids, or a list of either. Raises: ApiError for anything else."""
    if isinstance(given, str):
        return (given,)
    try:
        if isinstance(given[0], int):
            return (msgspec.convert(given, Ids),)
        return tuple(msgspec.convert(given, Prompts))
    except msgspec.ValidationError as error:
        raise ApiError(
            400, f"{field} is a text, a list of texts, a list of token ids or a list of these ({error}).", param=field
        ) from None


def texts_to_embed(body: EmbeddingsBody) -> tuple[Any, ...]:
    if body.dimensions is not None:
        raise ApiError(400, "dimensions: these vectors have the length the model gives them.", param="dimensions")
    return prompts_of(body.input, "input")


def _ask(body: Body, prompts: tuple[Any, ...], header: Header, **options: Any) -> Ask:
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true.", param="stream_options")
    if options["logprobs"] is not None and not header.capabilities.logprobs:
        raise ApiError(400, f"The {header.engine} engine gives no log probabilities.", param="logprobs")
    seed = secrets.randbelow(MAX_SEED) if body.seed is None else body.seed % MAX_SEED
    stop = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    options |= {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(0, body.top_k),
        "min_p": body.min_p,
        "stop": [text for text in stop if text] or None,
        "ignore_eos": body.ignore_eos,
        "user": body.user,
        "salt": body.cache_salt,
        **_structure(body, header),
    }
    return Ask(
        prompts=prompts,
        num_choices=body.n or 1,
        options={name: value for name, value in options.items() if value is not None},
        seed=seed,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        return_token_ids=bool(body.return_token_ids),
    )


def _structure(body: Body, header: Header) -> dict[str, Any]:
    """The form that the answer is held to, if any."""
    found: dict[str, Any] = {}
    match body.response_format:
        case JsonObjectFormat():
            found["json_schema"] = ANY_OBJECT
        case JsonSchemaFormat(json_schema):
            found["json_schema"] = json_schema.schema
    if (extra := body.structured_outputs) is not None:
        given = {"json_schema": extra.json, "regex": extra.regex, "choice": extra.choice, "grammar": extra.grammar}
        found |= {name: value for name, value in given.items() if value is not None}
    for name in ("json_schema", "choice"):
        _check_plain(found.get(name), MAX_DEPTH)
    if found and not (header.capabilities.json_schema or header.capabilities.grammar):
        raise ApiError(400, f"The {header.engine} engine cannot hold an answer to a form.", param="response_format")
    return found


def _check_plain(value: Any, depth: int) -> None:
    """Raises: ApiError for nested data that could not travel to the engine: too deep, or with numbers over 64 bits."""
    if not depth:
        raise ApiError(400, f"The schema is nested more than {MAX_DEPTH} deep.", param="response_format")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ApiError(400, "A number in the schema has more than 64 bits.", param="response_format")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_plain(item, depth - 1)


def _conversation(messages: list[Message]) -> list[dict[str, Any]]:
    """As the chat template wants it: roles it knows, content as one text."""
    return [
        {"role": "system" if message.role == "developer" else message.role, "content": _text(message)}
        for message in messages
    ]


def _text(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""
