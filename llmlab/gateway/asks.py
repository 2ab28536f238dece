"""What a gateway reads of a request: the model, how long the prompt is, whether it streams. The rest is the backend's.

This file must not know backends or routes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from llmlab.serve.failures import ApiError

# route -> where its prompt is
ROUTES = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input"}


class Body:
    """The body of a request, read once. Raises: ApiError (400) when it is not one."""

    def __init__(self, path: str, content: bytes) -> None:
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"The body is not JSON that can be read ({str(error)[:100]}).") from None
        if not isinstance(fields, dict):
            raise ApiError(400, "The body is not a JSON object.")
        self.path, self._fields = path, fields
        self.model = self._text("model")
        self.stream = self._flag(fields, "stream")
        options = fields.get("stream_options")
        self.wants_usage = isinstance(options, dict) and self._flag(options, "include_usage")
        prompt = ROUTES[path]
        if fields.get(prompt) is None:
            raise ApiError(400, f"The field {prompt} is missing.", param=prompt)
        self._prompt = fields[prompt]

    def for_backend(self, model: str) -> bytes:
        """The body as this backend gets it: its own name of the model, and it is to say what the answer took."""
        fields = {**self._fields, "model": model}
        if self.stream:
            given = fields.get("stream_options")
            fields["stream_options"] = {**(given if isinstance(given, dict) else {}), "include_usage": True}
        return json.dumps(fields, separators=(",", ":")).encode()

    def num_prompt_tokens(self, bytes_per_token: float) -> tuple[int, bool]:
        """How many, and whether that is an estimate by the bytes of the text; token ids are counted."""
        num_ids, num_bytes = 0, 0
        try:
            for part in _parts(self._prompt):
                if isinstance(part, int):
                    num_ids += 1
                else:
                    num_bytes += len(part.encode("utf-8", "surrogatepass"))
        except RecursionError:
            raise ApiError(400, "The prompt is nested too deep.", param=ROUTES[self.path]) from None
        return num_ids + math.ceil(num_bytes / bytes_per_token), num_bytes > 0

    @property
    def max_tokens(self) -> int | None:
        """What the client allows; None when he does not say, or nothing that can be."""
        given = self._fields.get("max_completion_tokens", self._fields.get("max_tokens"))
        return given if isinstance(given, int) and not isinstance(given, bool) and 0 < given < 2**31 else None

    def _text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str) or not value:
            raise ApiError(400, f"The field {name} is missing. GET /v1/models lists what can be asked.", param=name)
        return value

    def _flag(self, fields: dict[str, Any], name: str) -> bool:
        value = fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise ApiError(400, f"{name} is true or false.", param=name)
        return bool(value)


def _parts(prompt: Any) -> Iterator[str | int]:
    """The texts and the token ids of a prompt, in whatever form; what is neither counts nothing."""
    if isinstance(prompt, str) or (isinstance(prompt, int) and not isinstance(prompt, bool)):
        yield prompt
    elif isinstance(prompt, list):
        for item in prompt:
            yield from _parts(item)
    elif isinstance(prompt, dict):  # a message, or a piece of one
        yield from _parts(prompt.get("content"))
        yield from _parts(prompt.get("text"))
