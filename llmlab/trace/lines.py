"""One line of a trace file as one record, and back. What a newer writer added is kept, at its own level.

This file must not know files: jsonl.py reads and writes them.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from llmlab.errors import TraceError
from llmlab.trace.records import (
    SCHEMA,
    BlockDelta,
    Capabilities,
    CellDelta,
    Header,
    Incident,
    Record,
    Request,
    ScheduledRequest,
    Step,
    Token,
)

Line = Header | Request | Step | Incident


class NotJson(TraceError):
    """These bytes are no JSON at all: perhaps only the beginning of a line."""


# The key that tells what a line is. The first that is there decides, so a newer Incident may have a field `step`.
KINDS: dict[str, type[Line]] = {"schema": Header, "incident": Incident, "step": Step, "request_id": Request}
# Records inside records: field -> type, or type by tag.
PARTS: dict[type[Record], dict[str, type[Record] | dict[str, type[Record]]]] = {
    Header: {"capabilities": Capabilities, "kv_at_start": {"blocks": BlockDelta, "cells": CellDelta}},
    Step: {"scheduled": ScheduledRequest, "tokens": Token, "kv": {"blocks": BlockDelta, "cells": CellDelta}},
}

_ENCODER = msgspec.json.Encoder()
# A DecodeError is a ValueError in newer versions of msgspec only; a string that is no UTF-8 is one in all.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_DECODERS = {f'{{"{key}":'.encode(): msgspec.json.Decoder(kind) for key, kind in KINDS.items() if kind is not Header}
_Change = Callable[[dict[str, Any], type[Record]], dict[str, Any]]


def encode(record: Line) -> bytes:
    """The record as one line of JSON, without its line end.

    >>> encode(Step(step=3, t_s=0.5, extra={"joules": 2}))
    b'{"step":3,"t_s":0.5,"joules":2}'

    Raises: TraceError when JSON cannot hold a value.
    """
    try:
        line = _ENCODER.encode(record)
        if b'"extra":' in line:
            values = _with_parts(msgspec.to_builtins(record, str_keys=True), type(record), _put_extra_back)
            line = _ENCODER.encode(values)
    except UnicodeEncodeError as error:
        raise TraceError(_half_surrogate(error)) from None
    except (*_UNREADABLE, TypeError) as error:
        raise TraceError(f"JSON cannot hold it: {error}") from None
    return line


def decode(line: bytes) -> Line:
    """The record of one line.

    Raises: TraceError, in words that go on after "line 812: ".
    """
    for start, decoder in _DECODERS.items():
        if line.startswith(start):
            with contextlib.suppress(*_UNREADABLE):
                record = decoder.decode(line)
                # The same bytes again: no key stood there twice, no unknown key went into a field named extra.
                if _ENCODER.encode(record) == line:
                    return record
    return _decode_carefully(line)


def _decode_carefully(line: bytes) -> Line:
    try:
        values = _parse(line)
        kind = _kind_of(values)
        if kind is Header:
            _check_schema(values["schema"])
        record = msgspec.convert(_with_parts(values, kind, _put_extra_aside), kind, str_keys=True)
        # What was read can be written.
        encode(record)
    except msgspec.ValidationError as error:
        raise TraceError(_in_words(error)) from None
    except UnicodeEncodeError as error:
        raise TraceError(_half_surrogate(error)) from None
    except RecursionError:
        raise TraceError("is nested too deeply") from None
    return record


def _parse(line: bytes) -> dict[str, Any]:
    if line.startswith(codecs.BOM_UTF8):
        raise TraceError("starts with a byte order mark: save it as UTF-8 without one")
    try:
        values = json.loads(
            line.decode(), object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_refuse_number
        )
    except UnicodeDecodeError as error:
        raise NotJson(f"is not UTF-8: byte 0x{line[error.start]:02x} in column {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"is no JSON: {error.msg}, column {error.colno}") from None
    except ValueError:
        raise TraceError("holds a number of more than 4,300 digits") from None
    if not isinstance(values, dict):
        raise TraceError("is no JSON object")
    return values


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise TraceError(f"has the key {twice[:80]!r} twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse_number(text)
    return value


def _refuse_number(text: str) -> NoReturn:
    raise TraceError(f"holds {text[:20]}, which is no finite number")


def _kind_of(values: dict[str, Any]) -> type[Line]:
    for key, kind in KINDS.items():
        if key in values:
            return kind
    raise TraceError('is no header, request, step or incident: it has no "schema", "request_id", "step" or "incident"')


def _check_schema(schema: object) -> None:
    """A higher minor (llmlab.trace/1.3) only added fields: they are kept."""
    if not isinstance(schema, str) or not re.fullmatch(re.escape(SCHEMA) + r"(\.\d{1,9})?", schema, re.ASCII):
        raise TraceError(
            f"its schema is {str(schema)[:80]!r}, this llmlab reads {SCHEMA!r}. Open it with a newer llmlab"
        )


def _with_parts(values: Any, kind: type[Record] | dict[str, type[Record]], change: _Change) -> Any:
    """`values` with `change` applied to every record in it, inner ones first. What is no record stays as it is."""
    if isinstance(values, (list, tuple)):
        return [_with_parts(value, kind, change) for value in values]
    if not isinstance(values, dict):
        return values
    if isinstance(kind, dict):
        tag = values.get("kind")
        found = kind.get(tag) if isinstance(tag, str) else None
        if found is None:
            return values  # convert() says that the tag is wrong
        kind = found
    parts = PARTS.get(kind, {})
    values = {key: _with_parts(v, parts[key], change) if key in parts else v for key, v in values.items()}
    return change(values, kind)


def _put_extra_aside(values: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    known = _fields(kind)
    extra = {key: value for key, value in values.items() if key not in known}
    return {**{key: value for key, value in values.items() if key in known}, "extra": extra} if extra else values


def _put_extra_back(values: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    extra = values.pop("extra", {})
    if clash := sorted(extra.keys() & _fields(kind)):
        raise TypeError(f"extra has {clash[0]!r}, which is a field of {kind.__name__}")
    return {**values, **extra}


def _fields(kind: type[Record]) -> frozenset[str]:
    tag = kind.__struct_config__.tag_field
    return frozenset(kind.__struct_fields__) - {"extra"} | ({tag} if tag else set())


def _in_words(error: msgspec.ValidationError) -> str:
    return str(error).replace("`", "").replace(" - at $.", " at ").replace(" - at key in $.", " as a key of ")


def _half_surrogate(error: UnicodeEncodeError) -> str:
    return f"holds {error.object[error.start]!r}, half of a character, which UTF-8 cannot hold"
