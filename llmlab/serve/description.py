"""The OpenAPI description of the server, made from the bodies that it reads and writes.

This file must not know engines.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

import llmlab
from llmlab.serve import bodies, replies
from llmlab.serve.failures import ErrorReply

_BODIES = (
    bodies.CompletionBody, bodies.ChatBody, bodies.EmbeddingsBody, bodies.TokenizeBody, bodies.DetokenizeBody,
)  # fmt: skip
_REPLIES = (
    replies.Completion, replies.ChatCompletion, replies.ChatChunk, replies.Embeddings, replies.Model, replies.Models,
    replies.Tokens, replies.Text, ErrorReply,
)  # fmt: skip
_ERRORS = {
    400: "It cannot be served as asked",
    401: "No token, or a wrong one",
    404: "Another model",
    413: "The body is too large",
    429: "Too many answers are open: try again after Retry-After seconds",
    500: "The engine failed on it",
    503: "The engine is gone",
}


@cache
def description() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, schemas = msgspec.json.schema_components((*_BODIES, *_REPLIES), ref_template="#/components/schemas/{name}")
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmlab", "version": llmlab.__version__, "description": "An engine behind OpenAI's API."},
        "security": [{"token": []}],
        "paths": {
            "/v1/models": {"get": _operation("The model that is served", "Models")},
            "/v1/models/{model}": {"get": {**_operation("One model", "Model", 404), "parameters": [model]}},
            "/v1/completions": {"post": _asking("Go on with a text", "CompletionBody", "Completion", "Completion")},
            "/v1/chat/completions": {
                "post": _asking("Answer a conversation", "ChatBody", "ChatCompletion", "ChatChunk")
            },
            "/v1/embeddings": {
                "post": {**_operation("Vectors of texts", "Embeddings", *_ERRORS), **_body("EmbeddingsBody")}
            },
            "/tokenize": {"post": {**_operation("Token ids of a text", "Tokens", *_ERRORS), **_body("TokenizeBody")}},
            "/detokenize": {
                "post": {**_operation("The text of token ids", "Text", *_ERRORS), **_body("DetokenizeBody")}
            },
            "/health": {"get": _operation("Whether the engine is loaded", None, 503)},
            "/metrics": {"get": _text("Figures for Prometheus")},
            "/trace": {"get": _text("What the engine does, as it does it: lines of a trace file", "application/jsonl")},
            "/trace/clock": {"get": _operation("The clock of the trace", None)},
            "/openapi.json": {"get": _operation("This description", None)},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(text: str, reply: str | None, *statuses: int) -> dict[str, Any]:
    schema = _ref(reply) if reply else {"type": "object"}
    return {
        "summary": text,
        "responses": {"200": _response("Done", "application/json", schema), **_errors(401, 413, *statuses)},
    }


def _asking(text: str, body: str, reply: str, chunk: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(reply)}, "text/event-stream": {"schema": {"type": "string"}}}
    done = {"description": f"The answer; as a stream, events that hold a {chunk} each", "content": content}
    return {"summary": text, "responses": {"200": done, **_errors(*_ERRORS)}, **_body(body)}


def _text(text: str, kind: str = "text/plain") -> dict[str, Any]:
    done = _response("Done", kind, {"type": "string"})
    return {"summary": text, "responses": {"200": done, **_errors(401, 413)}}


def _body(name: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref(name)}}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(s): _response(_ERRORS[s], "application/json", _ref("ErrorReply")) for s in statuses}


def _response(text: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
