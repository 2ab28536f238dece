"""The header of a GGUF file, read without touching its weights, and the check that the file is whole.

A header of 49,152 tokens takes `gguf.GGUFReader` a second and this scan 30 ms, because arrays stay unread until asked
for. This file must not know architectures or tokenizers; it must not import numpy or gguf.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (GGUF versions 2 and 3, little endian).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmlab.errors import ModelError
from llmlab.models.gguf_scan import ArrayRef, Scan
from llmlab.models.quants import TENSOR_TYPES, TensorType

_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: `shape` in numpy order (rows first), `offset` in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    type_id: int
    offset: int
    num_bytes: int


class GgufHeader:
    """Metadata and tensor table of one GGUF file.

    >>> header = GgufHeader(Path("model.gguf"))          # doctest: +SKIP
    >>> header["llama.block_count"], header.tensors["token_embd.weight"].shape   # doctest: +SKIP
    (30, (49152, 576))

    Raises ModelError when the file is missing, empty, of another format, or its header is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.value_types: dict[str, int] = {}
        self._values: dict[str, Any] = {}
        scan = Scan(path)
        try:
            tensor_count, num_values = scan.start()
            for _ in range(num_values):
                key = scan.string()
                self.value_types[key], self._values[key] = scan.value()
            self.tensors = _tensor_table(scan, tensor_count, self.get("general.alignment", _DEFAULT_ALIGNMENT))
        finally:
            scan.close()
        self.file_bytes = scan.size

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        """The value of `key`; an array is read from the file now. Raises ModelError when the key is missing."""
        if key not in self._values:
            raise ModelError(
                f"{self.path}: the metadata has no {key!r}. The file is no complete model: fetch it again."
            )
        value = self._values[key]
        return self._read_array(value) if isinstance(value, ArrayRef) else value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        return default if key not in self._values else self[key]

    def count(self, key: str) -> int:
        """Number of values in the array `key`, 0 when there is none; reads nothing."""
        value = self._values.get(key)
        return value.count if isinstance(value, ArrayRef) else 0

    def array_type(self, key: str) -> int | None:
        """Value type of the array's elements, None when `key` is no array."""
        value = self._values.get(key)
        return value.value_type if isinstance(value, ArrayRef) else None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._values)

    @cached_property
    def architecture(self) -> str:
        return str(self["general.architecture"])

    def _read_array(self, array: ArrayRef) -> list[Any]:
        scan = Scan(self.path, array.offset)
        try:
            return scan.array_values(array)
        finally:
            scan.close()


def check_gguf(path: str | Path) -> GgufHeader:
    """The header of a GGUF model file that is whole: every tensor lies inside the file.

    llama.cpp may crash on a file that was cut short, so this runs before it sees one. Takes about 30 ms; the weights
    are not read. All parts of a split model (`-00001-of-00003.gguf`) are checked.

    Raises ModelError that names the file, what is wrong and what to do.
    """
    header = GgufHeader(Path(path))
    if "general.architecture" not in header:
        raise ModelError(f"{path} names no architecture: it is no model file. Give the .gguf of a model.")
    # only the first part of a split model has the metadata
    for part in (header, *map(GgufHeader, _other_parts(header))):
        _check_extents(part)
    return header


def _check_extents(header: GgufHeader) -> None:
    for tensor in header.tensors.values():
        end = tensor.offset + tensor.num_bytes
        if end > header.file_bytes:
            raise ModelError(
                f"{header.path} is cut short: {header.file_bytes:,} bytes, but tensor {tensor.name!r} ends at byte"
                f" {end:,}. Delete the file and download or copy it again."
            )


def _other_parts(header: GgufHeader) -> list[Path]:
    """The other files of a split model when this is its first."""
    path, count = header.path, header.get("split.count", 1)
    match = re.fullmatch(r"(.*)-00001-of-\d{5}\.gguf", path.name)
    if match is None or not isinstance(count, int):
        return []
    return [path.with_name(f"{match[1]}-{part:05}-of-{count:05}.gguf") for part in range(2, count + 1)]


def _tensor_table(scan: Scan, tensor_count: int, alignment: int) -> Mapping[str, TensorInfo]:
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise scan.broken(f"general.alignment is {alignment!r}, expected a power of two")
    raw = [_tensor_info(scan) for _ in range(tensor_count)]
    start = -(-scan.position // alignment) * alignment
    return {t.name: TensorInfo(t.name, t.shape, t.type, t.type_id, start + t.offset, t.num_bytes) for t in raw}


def _tensor_info(scan: Scan) -> TensorInfo:
    """One row of the tensor table; its offset counts from the start of the data section."""
    name, num_dims = scan.string(), scan.unpack("I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise scan.broken(f"tensor {name!r} has {num_dims} dimensions, expected 1 to {_MAX_DIMS}")
    # ggml stores the fastest dimension first
    shape = tuple(reversed([scan.unpack("Q") for _ in range(num_dims)]))
    type_id, offset = scan.unpack("I"), scan.unpack("Q")
    tensor_type = TENSOR_TYPES.get(type_id)
    if tensor_type is None:
        raise scan.broken(f"tensor {name!r} has the unknown type {type_id}")
    num_weights = 1
    for dim in shape:
        num_weights *= dim
    if num_weights == 0 or shape[-1] % tensor_type.block_size:
        raise scan.broken(f"tensor {name!r} of type {tensor_type.name} has the shape {shape}")
    num_bytes = num_weights // tensor_type.block_size * tensor_type.block_bytes
    return TensorInfo(name, shape, tensor_type, type_id, offset, num_bytes)
