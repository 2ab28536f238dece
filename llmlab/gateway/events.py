"""Events of a stream: cut where they end, and what a gateway must see in them. All else passes as it came.

This file must not know HTTP or backends.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_END = re.compile(rb"\r?\n\r?\n")
MAX_EVENT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Usage:
    """What the backend says an answer took."""

    num_prompt_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event with the empty line at its end."""

    content: bytes
    # a piece of the answer: text, a tool call. What comes before it may be taken back, since nobody misses it
    has_text: bool = False
    # an answer ends with it
    has_end: bool = False
    is_done: bool = False
    error: str | None = None
    usage: Usage | None = None
    # nothing but the usage, which a client may not have asked for
    is_usage_alone: bool = False


class TooLong(Exception):
    """An event without an end."""


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Event]]:
    """The events that came together, at least one. What comes after the last end is none. Raises: TooLong."""
    rest, has_begun = b"", False
    async for chunk in chunks:
        rest += chunk
        begin, found = 0, []
        for end in _END.finditer(rest):
            event = rest[begin : end.end()]
            found.append(Event(event, has_text=True) if has_begun and _is_plain(event) else read_event(event))
            has_begun = has_begun or found[-1].has_text
            begin = end.end()
        rest = rest[begin:]
        if found:
            yield found
        if len(rest) > MAX_EVENT_BYTES:
            raise TooLong


def _is_plain(content: bytes) -> bool:
    """Whether it is one more piece of text, by its look: thousands a second pass, and most are.

    In JSON a quote inside a text has a backslash before it: what is found here is a field.
    """
    return (
        (b'"finish_reason":null' in content or b'"finish_reason": null' in content)
        and (b'"usage"' not in content or b'"usage":null' in content or b'"usage": null' in content)
        and b'"error"' not in content
    )


def read_event(content: bytes) -> Event:
    r"""What one event says.

    >>> read_event(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n').has_text
    True
    >>> read_event(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n').usage
    Usage(num_prompt_tokens=3, num_output_tokens=5)
    """
    text = b"".join(
        line[5:].strip() for line in content.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")
    )
    if text == b"[DONE]":
        return Event(content, is_done=True)
    try:
        fields = json.loads(text) if text else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):  # a comment, or what only the client understands
        return Event(content)
    if (error := fields.get("error")) is not None:
        return Event(content, error=_code_of(error))
    usage, choices = usage_of(fields), fields.get("choices")
    of_answers = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return Event(
        content, has_text=any(map(_has_text, of_answers)), has_end=any(c.get("finish_reason") for c in of_answers),
        usage=usage, is_usage_alone=usage is not None and choices == [],
    )  # fmt: skip


def usage_of(fields: dict[str, Any]) -> Usage | None:
    """What an answer, or an event of one, says that it took."""
    usage = fields.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    return Usage(prompt, output or 0) if isinstance(prompt, int) and isinstance(output or 0, int) else None


def _has_text(choice: dict[str, Any]) -> bool:
    """Whether a choice brings more than its role."""
    delta = choice.get("delta")
    said = {name: value for name, value in delta.items() if name != "role"} if isinstance(delta, dict) else {}
    return bool(choice.get("text")) or any(said.values())


def _code_of(error: Any) -> str:
    """A word for the log; the sentence of a server may repeat what it was asked."""
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code if isinstance(code, str) and re.fullmatch(r"\w{1,40}", code) else "error"
