"""Writes a GGUF file tensor by tensor: F32, F16 or BF16 matrices, everything of one dimension in F32.

This file must not know where metadata and weights come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError
from llmlab.models.gguf_file import GgufHeader
from llmlab.models.gguf_package import GGMLQuantizationType, GGUFValueType, GGUFWriter, quants
from llmlab.models.gguf_scan import ARRAY

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value with its GGUF type, where the type of the Python value does not say it."""

    value: Any
    type: int
    element_type: int | None = None


def copy_metadata(header: GgufHeader) -> dict[str, Any]:
    """All metadata of a file but its architecture, which `write_gguf` takes by itself. Empty arrays are left out."""
    return {
        key: Typed(header[key], header.value_types[key], header.array_type(key))
        for key in header.keys
        if key != "general.architecture" and not (header.value_types[key] == ARRAY and header.count(key) == 0)
    }


def write_gguf(
    path: Path,
    architecture: str,
    *,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    quant: str,
    read: Callable[[str], Floats],
) -> None:
    """Writes one file; `read(name)` is called once per tensor, in order, so one tensor is in memory at a time.

    `metadata` values are bool, int (stored as uint32), float (float32), str, a list of these, or Typed.
    Raises ModelError when a weight is too large for F16.
    """
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        typed = value if isinstance(value, Typed) else _typed(value)
        sub_type = None if typed.element_type is None else GGUFValueType(typed.element_type)
        writer.add_key_value(key, typed.value, GGUFValueType(typed.type), sub_type)
    for name, shape in shapes.items():
        stored = quant if len(shape) > 1 else "F32"
        num_bytes = math.prod(shape) * (4 if stored == "F32" else 2)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, GGMLQuantizationType[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in shapes.items():
        tensor = read(name)
        assert tensor.shape == shape, (name, tensor.shape, shape)
        writer.write_tensor_data(_encode(tensor, quant if len(shape) > 1 else "F32", name))
    writer.close()


def _typed(value: Any) -> Typed:
    if isinstance(value, bool):
        return Typed(value, GGUFValueType.BOOL)
    if isinstance(value, int):
        return Typed(value, GGUFValueType.UINT32)
    return Typed(value, GGUFValueType.get_type(value))


def _encode(tensor: Floats, quant: str, name: str) -> NDArray[Any]:
    if quant == "F32":
        return np.ascontiguousarray(tensor, np.float32)
    if quant == "BF16":
        return np.asarray(quants.quantize(np.ascontiguousarray(tensor), GGMLQuantizationType.BF16))
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(tensor, np.float16)
    if np.isinf(half).any() and not np.isinf(tensor).any():
        raise ModelError(f"Tensor {name!r} holds weights above 65504, the largest F16. Use BF16 or F32 for this model.")
    return half
