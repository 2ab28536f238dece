"""Thousands of ways to break a trace file, each given by its number alone."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator

HOSTILE = [
    *(b"null true -1 0.5 1e999 -1e999 NaN Infinity -Infinity 2147483648 9007199254740993 18446744073709551616".split()),
    *(b'"" "\\ud800" "\xff" [] {} [[]] [-1] {"a":1} {"":{}} [1,2,3,4] "cells" 16777216 -9223372036854775809'.split()),
    b"1" * 30,
    b"9" * 5000,
    b'"' + b"x" * 2000 + b'"',
    b"[" * 3000,
    b"[" * 300 + b"]" * 300,
    b'{"a":' * 2000,
]


def truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def bits_flipped(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def bytes_lost_or_added(rng: random.Random, data: bytes) -> bytes:
    at, length = rng.randrange(len(data)), rng.randint(1, 40)
    added = rng.choice([b"", rng.randbytes(length), b"\xff\xfe", b"\x00", b"\xef\xbb\xbf", b"\n", b"\r\n", b"{", b'"'])
    return data[:at] + added + data[at + rng.choice([0, length]) :]


def value_replaced(rng: random.Random, data: bytes) -> bytes:
    """Another type or a hostile size in the place of one value: the JSON stays whole, the record does not."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    values = json.loads(lines[number])
    holder, key = rng.choice(list(_places(values)))
    holder[key] = "@HERE@"
    lines[number] = json.dumps(values, separators=(",", ":")).encode().replace(b'"@HERE@"', rng.choice(HOSTILE))
    return b"\n".join(lines) + b"\n"


def key_renamed_or_doubled(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    values = json.loads(lines[number])
    keys = list(values)
    old = rng.choice(keys)
    new = rng.choice([*keys, "step", "request_id", "incident", "schema", "kind", "extra", "x" * 50])
    lines[number] = lines[number].replace(json.dumps(old).encode() + b":", json.dumps(new).encode() + b":", 1)
    return b"\n".join(lines) + b"\n"


def lines_moved(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines()
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[i], lines[j] = lines[j], lines[i]
        case 1:
            del lines[i]
        case 2:
            lines.insert(i, lines[j])
        case 3:
            lines.insert(i, rng.choice([b"", b"   ", b"null", b"[]", b'"step"', b"{}", b"#", b"7"]))
    return b"\n".join(lines) + b"\n"


def other_encoding(rng: random.Random, data: bytes) -> bytes:
    return data.decode().encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"]))


DAMAGE: list[Callable[[random.Random, bytes], bytes]] = [
    truncated,
    bits_flipped,
    bytes_lost_or_added,
    value_replaced,
    value_replaced,
    key_renamed_or_doubled,
    lines_moved,
    other_encoding,
]


def broken(number: int, sound: list[bytes]) -> tuple[str, bytes]:
    """Suffix and content of the broken file of this number. Every third is a .gz, damaged inside or outside."""
    rng = random.Random(number)
    data = rng.choice(sound)
    if number % 3:
        return ".jsonl", rng.choice(DAMAGE)(rng, data)
    if rng.random() < 0.3:
        return ".jsonl.gz", gzip.compress(rng.choice(DAMAGE)(rng, data), 1)
    packed = gzip.compress(data, 1)
    damage = rng.choice([truncated, bits_flipped, bytes_lost_or_added])
    return ".jsonl.gz", rng.choice([packed, b""]) + damage(rng, packed)


def _places(values: object) -> Iterator[tuple[dict[str, object] | list[object], str | int]]:
    """Every place in nested values where another value could stand."""
    inner = (
        list(values.items())
        if isinstance(values, dict)
        else list(enumerate(values))
        if isinstance(values, list)
        else []
    )
    for key, value in inner:
        yield values, key  # type: ignore[misc]
        yield from _places(value)
