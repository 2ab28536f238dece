"""ApiError: what a client is told when something cannot be done, in OpenAI's form.

This file must not know routes or engines.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llmlab.errors import EngineDied, LlmlabError, ModelError, RequestError

# status -> the "type" that OpenAI gives such an error
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class ErrorBody(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(msgspec.Struct, frozen=True):
    """The body of every answer that is no success."""

    error: ErrorBody


class ApiError(Exception):
    """A request that is answered with an error. `param`: the field at fault, `code`: a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.reply = ErrorReply(ErrorBody(message, _TYPES.get(status, "invalid_request_error"), param, code))

    @classmethod
    def of(cls, error: LlmlabError) -> ApiError:
        """What the library says, with the status of its kind."""
        if isinstance(error, (RequestError, ModelError)):
            return cls(400, str(error))
        return cls(503, str(error), code="engine_died") if isinstance(error, EngineDied) else cls(500, str(error))

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.reply)
