"""What the notebook and the host say to each other, as msgpack. One message per engine step carries all its tokens.

This file must not know sockets or engines. Steps travel as bare trace records (see STEP), everything else as one of
the tagged structs below.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmlab.trace import Header, Request, Step

# First byte of a message from the host: a Step follows, or an Event follows.
STEP, EVENT = b"S", b"E"


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


# ---- notebook -> host


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the notebook asks for it: token_ids, or messages for the chat template, or bare text."""

    request_id: str
    sent_s: float  # time.monotonic() of the notebook; one clock on one machine
    text: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    sampling: dict[str, Any] = {}
    priority: int = 0
    user: str = ""
    salt: str = ""


class AddRequests(Message, frozen=True):
    prompts: tuple[Prompt, ...]


class AbortRequests(Message, frozen=True):
    request_ids: tuple[str, ...]


class Drive(Message, frozen=True):
    """Pause, single steps, slow motion: whether to run, how many steps in spite of a pause, seconds between steps."""

    paused: bool | None = None
    steps: int = 0
    slow_s: float | None = None


class Call(Message, frozen=True):
    """A question to the engine outside its steps, answered by a Reply: tokenize, pieces, memory, logits."""

    call_id: int
    method: str
    arguments: dict[str, Any] = {}


class Close(Message, frozen=True):
    pass


Command = AddRequests | AbortRequests | Drive | Call | Close

# ---- host -> notebook


class Ready(Message, frozen=True):
    """The engine is loaded. epoch_s is the time.monotonic() of t_s = 0."""

    header: Header
    epoch_s: float
    load_s: float
    notes: tuple[str, ...] = ()


class LoadFailed(Message, frozen=True):
    error: str
    text: str


class Accepted(Message, frozen=True):
    """These requests are in the engine; from here on they are part of the trace."""

    requests: tuple[Request, ...]


class Refused(Message, frozen=True):
    """This request cannot be served as asked."""

    request_id: str
    text: str


class Failed(Message, frozen=True):
    """The engine broke off these requests, and goes on."""

    request_ids: tuple[str, ...]
    text: str


class Reply(Message, frozen=True):
    call_id: int
    value: Any = None
    error: str | None = None


Event = Ready | LoadFailed | Accepted | Refused | Failed | Reply

_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(Command)
_event_decoder = msgspec.msgpack.Decoder(Event)
_step_decoder = msgspec.msgpack.Decoder(Step)

encode = _encoder.encode
decode_command = _command_decoder.decode
decode_event = _event_decoder.decode
decode_step = _step_decoder.decode
