"""A cursor over a mapped GGUF file: one value after the other, each checked against the file's end.

This file must not know what the values mean.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (GGUF versions 2 and 3, little endian).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import ModelError

# value type id -> struct format of one value
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """An array that was skipped while scanning: `count` values of `value_type` starting at byte `offset`."""

    value_type: int
    count: int
    offset: int


class Scan:
    """A cursor over the mapped file; every step is checked against the file's end."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        self.position = position
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # mmap refuses a file of 0 bytes
            raise ModelError(f"{path} is empty. Delete it and download or copy it again.") from None
        except OSError as error:
            raise ModelError(f"Cannot read {path}: {error.strerror}. Check the path.") from error
        self.size = len(self._map)

    def close(self) -> None:
        self._map.close()

    def broken(self, what: str) -> ModelError:
        return ModelError(f"{self.path} is damaged: {what}. Delete it and download or copy it again.")

    def start(self) -> tuple[int, int]:
        """Number of tensors and of metadata values, after the magic bytes and the version."""
        magic = self._map[:4]
        if magic != b"GGUF":
            raise ModelError(
                f"{self.path} is no GGUF file: it starts with {magic!r}, expected b'GGUF'. Give a .gguf file or a"
                " folder with config.json and *.safetensors."
            )
        self.position = 4
        version = self.unpack("I")
        if version not in (2, 3):
            raise ModelError(
                f"{self.path} has GGUF version {version}; versions 2 and 3, little endian, can be read. Fetch a newer"
                " file of this model."
            )
        return self.unpack("Q"), self.unpack("Q")

    def advance(self, num_bytes: int) -> int:
        """Moves on by `num_bytes`; returns where they began."""
        begin = self.position
        if num_bytes > self.size - begin:
            raise self.broken(f"its header ends at byte {self.size:,}, in the middle of a value")
        self.position = begin + num_bytes
        return begin

    def unpack(self, code: str) -> Any:
        layout = struct.Struct("<" + code)
        return layout.unpack_from(self._map, self.advance(layout.size))[0]

    def string(self) -> str:
        begin = self.advance(self.unpack("Q"))
        # a token may be a piece of a character: keep its bytes, do not refuse the file
        return self._map[begin : self.position].decode("utf-8", "surrogateescape")

    def value(self) -> tuple[int, Any]:
        """Type and value at the cursor; an array is skipped and returned as its ArrayRef."""
        value_type = self.unpack("I")
        if value_type == STRING:
            return value_type, self.string()
        if value_type == ARRAY:
            array = ArrayRef(self.unpack("I"), self.unpack("Q"), self.position)
            self._skip_array(array)
            return value_type, array
        return value_type, self.unpack(self._code(value_type))

    def array_values(self, array: ArrayRef) -> list[Any]:
        if array.value_type == STRING:
            return [self.string() for _ in range(array.count)]
        layout = struct.Struct(f"<{array.count}{self._code(array.value_type)}")
        return list(layout.unpack_from(self._map, self.advance(layout.size)))

    def _code(self, value_type: int) -> str:
        if value_type not in _SCALARS:
            raise self.broken(f"a metadata value has the unknown type {value_type}")
        return _SCALARS[value_type]

    def _skip_array(self, array: ArrayRef) -> None:
        if array.value_type != STRING:
            self.advance(array.count * struct.calcsize("<" + self._code(array.value_type)))
            return
        # the one hot loop of a header (100,000 strings): no method call per string
        unpack, buffer, position = struct.Struct("<Q").unpack_from, self._map, self.position
        try:
            for _ in range(array.count):
                position += 8 + unpack(buffer, position)[0]
        except (struct.error, OverflowError):
            position = self.size + 1
        self.advance(position - self.position)
