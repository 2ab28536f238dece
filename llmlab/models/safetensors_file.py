"""Safetensors files, read and written one tensor at a time, as float32.

The `safetensors` package has no bfloat16 for numpy and writes a file only from memory; a converter needs both. This
file must not know which tensors a model has.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError

Floats = NDArray[np.float32]

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: `offset` in bytes from the start of the file at `path`."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def read_table(path: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor in one file; its weights stay unread.

    Raises ModelError when the file is empty, cut short, of another format, or holds a dtype that is no float.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            num_header_bytes = int.from_bytes(file.read(8), "little")
            if size < 8 or num_header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise _damaged(path, f"{size:,} bytes, too few for its header or no safetensors file")
            header = json.loads(file.read(num_header_bytes))
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    start = 8 + num_header_bytes
    return {name: _stored_tensor(path, name, entry, start, size) for name, entry in header.items()}


def _stored_tensor(path: Path, name: str, entry: object, start: int, file_bytes: int) -> StoredTensor:
    try:
        dtype, (begin, end) = str(entry["dtype"]), map(int, entry["data_offsets"])  # type: ignore[index]
        shape = tuple(int(dim) for dim in entry["shape"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _damaged(path, f"the header entry of tensor {name!r} is incomplete") from None
    if dtype not in _ITEM_BYTES:
        raise ModelError(
            f"{path}: tensor {name!r} has dtype {dtype}; llmlab converts F32, F16 and BF16. These weights are quantized"
            " already: use the original folder of the model, or a .gguf of it."
        )
    tensor = StoredTensor(path, name, dtype, shape, start + begin)
    if min(shape, default=1) < 0 or begin < 0 or end - begin != tensor.num_bytes:
        raise _damaged(path, f"tensor {name!r} of shape {shape} cannot lie at bytes {begin} to {end}")
    if tensor.offset + tensor.num_bytes > file_bytes:
        raise _damaged(path, f"{file_bytes:,} bytes, but tensor {name!r} ends at byte {start + end:,}")
    return tensor


def read_tensor(tensor: StoredTensor) -> Floats:
    """The weights as float32, [*shape]."""
    dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype]
    stored = np.fromfile(tensor.path, dtype, count=math.prod(tensor.shape), offset=tensor.offset)
    if tensor.dtype == "BF16":  # bfloat16 is the upper half of a float32
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False).reshape(tensor.shape)


def write_float32(path: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Floats]) -> None:
    """Writes a float32 file; `read(name)` is called once per tensor, in order, so one tensor is in memory at a time."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * 4
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            tensor = read(name)
            assert tensor.shape == shape, (name, tensor.shape, shape)
            file.write(np.ascontiguousarray(tensor, "<f4").data)


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is damaged: {what}. Delete it and download or copy it again.")
