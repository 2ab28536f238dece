"""What the notebook and the host say to each other, as msgpack. One record per engine step carries all its tokens.

This file must not know sockets. Steps travel as trace records or as their columns (see STEPS), everything else as one
of the tagged structs below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llmlab.engines.base import EngineConfig
from llmlab.engines.decode_step import DecodeStep
from llmlab.trace import Header, Request, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# First byte of a message from the host: steps follow, each with the seconds it waited for the others; or an Event.
STEPS, EVENT = b"S", b"E"
# msgpack extension type of a numpy array: (dtype, shape, bytes)
ARRAY = 1
# First bytes of an array in msgpack: of up to 15 values (in the upper half of the byte), of more.
_FIXARRAY, _ARRAY16 = 0x90, 0xDC


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


# ---- notebook -> host


class Load(Message, frozen=True):
    """The first thing a host is told. `parts` are keyword arguments of the engine class, pickled by cloudpickle."""

    config: EngineConfig
    parts: bytes = b""
    # sys.path of the notebook: modules beside the notebook are found there.
    import_path: tuple[str, ...] = ()


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the notebook asks for it: token_ids, or messages for the chat template, or bare text."""

    request_id: str
    # time.monotonic() of the notebook: one clock on one machine. In the future: the request arrives then, not before.
    sent_s: float
    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    sampling: dict[str, Any] = {}
    priority: int = 0
    user: str = ""
    salt: str = ""
    parent_id: str = ""


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
    """A question to the engine outside its steps, answered by a Reply: tokenize, pieces, memory_bytes, logits."""

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
    """The engine broke off these requests, and goes on. `error` is the name of the exception."""

    request_ids: tuple[str, ...]
    text: str
    error: str = "EngineError"


class Reply(Message, frozen=True):
    """The answer to a Call: a value, or the name of the exception and its text."""

    call_id: int
    value: Any = None
    error: str | None = None
    text: str = ""


Event = Ready | LoadFailed | Accepted | Refused | Failed | Reply


def _array_to_ext(value: object) -> msgspec.msgpack.Ext:
    if type(value).__module__ != "numpy":
        raise NotImplementedError(f"{type(value).__name__} cannot travel between notebook and host")
    array: NDArray[np.generic] = value  # type: ignore[assignment]
    return msgspec.msgpack.Ext(ARRAY, msgspec.msgpack.encode((array.dtype.str, array.shape, array.tobytes())))


def _ext_to_array(code: int, data: memoryview) -> NDArray[np.generic]:
    import numpy as np

    dtype, shape, content = msgspec.msgpack.decode(data, type=tuple[str, tuple[int, ...], bytes])
    return np.frombuffer(content, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_array_to_ext)
_load_decoder = msgspec.msgpack.Decoder(Load)
_command_decoder = msgspec.msgpack.Decoder(Command)
_event_decoder = msgspec.msgpack.Decoder(Event, ext_hook=_ext_to_array)
_steps_decoder = msgspec.msgpack.Decoder(list[tuple[float, msgspec.Raw]])
_step_decoder = msgspec.msgpack.Decoder(Step)
_decode_step_decoder = msgspec.msgpack.Decoder(DecodeStep)

encode = _encoder.encode
decode_load = _load_decoder.decode
decode_command = _command_decoder.decode
decode_event = _event_decoder.decode


def split_steps(content: bytes) -> list[tuple[float, bytes]]:
    """The steps of a message, still encoded, and how long each was held back, in s."""
    return [(held_s, bytes(encoded)) for held_s, encoded in _steps_decoder.decode(content)]


def decode_step(content: bytes) -> Step:
    """A step as it was sent: a Step is a map of msgpack, a DecodeStep an array."""
    if content[0] == _ARRAY16 or content[0] & 0xF0 == _FIXARRAY:
        return _decode_step_decoder.decode(content).record()
    return _step_decoder.decode(content)
