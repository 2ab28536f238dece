"""What clients may send: the bodies of OpenAI's API, as far as the engines can do what they ask for.

A field that would be ignored is refused: an answer must not look as if it had been followed. This file must not know
engines.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from llmlab.errors import unknown
from llmlab.serve.failures import ApiError

MAX_CHOICES, MAX_PROMPTS, MAX_LOGPROBS, MAX_STOPS = 128, 256, 20, 16
# Of a question about the vocabulary, which is answered between two steps: it must not hold up who waits for an answer.
MAX_TEXT, MAX_IDS = 2**18, 2**16
TokenCount = Annotated[int, Meta(ge=1, lt=2**31)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Ids = Annotated[list[TokenId], Meta(min_length=1)]
Prompts = Annotated[list[str | Ids], Meta(min_length=1, max_length=MAX_PROMPTS)]
BodyT = TypeVar("BodyT", bound="Body")


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a message. Text is all that these engines read."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonObjectFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: NamedSchema


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vLLM's field for the forms that response_format has no name for; one of them."""

    json: dict[str, Any] | None = None
    regex: str | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    # padding against eavesdroppers who count bytes: there is none to leave out
    include_obfuscation: bool | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a completion and a chat completion have in common. None: not given."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=MAX_STOPS)] | None = None
    # Any whole number; the engines take it modulo 2**32.
    seed: int | None = None
    max_tokens: TokenCount | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    user: str | None = None
    # vLLM's, beyond OpenAI's
    top_k: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    # These are taken at the value that changes nothing (NEUTRAL).
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    # These change nothing of an answer.
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class CompletionBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    prompt: str | Annotated[list[Any], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None


class ChatBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    input: str | Annotated[list[Any], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    prompt: Annotated[str, Meta(max_length=MAX_TEXT)]
    model: str | None = None


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tokens: Annotated[list[TokenId], Meta(max_length=MAX_IDS)]
    model: str | None = None


# field -> the values beside None that change nothing; any other is refused
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0.0,),
    "presence_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
_KINDS = (CompletionBody, ChatBody, EmbeddingsBody, TokenizeBody, DetokenizeBody)
_DECODERS = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}
_PATH = re.compile(r"(.*) - at `(.*)`", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def read(kind: type[BodyT], content: bytes) -> BodyT:
    """The body of a request. Raises: ApiError with the field that is at fault."""
    body = read_struct(kind, content)
    for name, values in NEUTRAL.items():
        given = getattr(body, name, None)
        if given is not None and given not in values:
            raise ApiError(
                400, f"{name} is {_short(given)}; no engine of llmlab can do that. Leave it out.", param=name
            )
    for number, message in enumerate(getattr(body, "messages", ())):
        if message.tool_calls or message.role == "tool":
            raise ApiError(400, "Tool calls are not supported: send text messages only.", param=f"messages[{number}]")
    return body


def read_struct(kind: type[Any], content: bytes) -> Any:
    """JSON of one kind. Raises: ApiError when it is none, or another."""
    try:
        return _DECODERS[kind].decode(content)
    except msgspec.ValidationError as error:
        message, _, path = _split(str(error))
        raise ApiError(400, _with_hint(kind, message, path), param=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body is not JSON that can be read ({error}).") from None


def _split(text: str) -> tuple[str, str, str]:
    """The sentence of a ValidationError, and the path to the field: ("Expected `int`, got `str`", ..., "n")."""
    match = _PATH.fullmatch(text)
    return (match[1], " - at ", match[2].removeprefix("$").removeprefix(".")) if match else (text, "", "")


def _with_hint(kind: type[Any], message: str, path: str) -> str:
    field = _UNKNOWN_FIELD.fullmatch(message)
    if field and not path:
        return unknown("field", field[1], kind.__struct_fields__)
    return f"{path}: {message}." if path else f"{message}."


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
