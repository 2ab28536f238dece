"""Block quantization: 32 weights share one scale. In numpy, and by llama.cpp's own code for comparison.

    Q8_0, 34 bytes a block   [float16 scale d] [32 x int8]                       weight = d * q
    Q4_0, 18 bytes a block   [float16 scale d] [16 bytes of two 4-bit codes]     weight = d * (q - 8)

Byte j of a Q4_0 block holds weight j in its low nibble and weight j + 16 in its high one. All is computed in float32,
as llama.cpp does without an importance matrix; where its compiler fuses multiply and add, some of its bytes differ.
This file must not know files: llama_quantize.py makes those.

Source: ggml/src/ggml-quants.c quantize_row_q8_0_ref, quantize_row_q4_0_ref (libggml 0.25.3).
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError
from llmlab.models.quants import TENSOR_TYPES

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
BLOCK_SIZE = 32


class Quantizer(Protocol):
    """A block format of 32 weights."""

    name: str
    bytes_per_block: int

    def quantize(self, x: Floats) -> Bytes:
        """[..., last dimension a multiple of 32] -> [num_blocks, bytes_per_block]; x stays as it is."""
        ...

    def dequantize(self, blocks: Bytes) -> Floats:
        """[num_blocks, bytes_per_block] -> [num_blocks * 32]"""
        ...


class Q8_0:
    """The largest magnitude of a block becomes code 127 or -127; halves are rounded away from zero."""

    name, bytes_per_block = "Q8_0", 34

    def quantize(self, x: Floats) -> Bytes:
        blocks = x.reshape(-1, BLOCK_SIZE)
        scales = np.abs(blocks).max(axis=1) / np.float32(127)
        scaled = blocks * _inverse(scales)[:, None]
        whole = np.trunc(scaled)
        codes = whole + np.copysign(np.abs(scaled - whole) >= 0.5, scaled)
        return np.hstack([_scale_bytes(scales), codes.astype(np.int8).view(np.uint8)])

    def dequantize(self, blocks: Bytes) -> Floats:
        return (_scales(blocks) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)).reshape(-1)


class Q4_0:
    """The weight of largest magnitude, with its sign, becomes code 0, which stands for -8; zero is code 8."""

    name, bytes_per_block = "Q4_0", 18

    def quantize(self, x: Floats) -> Bytes:
        blocks = x.reshape(-1, BLOCK_SIZE)
        largest = np.abs(blocks).argmax(axis=1)[:, None]
        scales = np.take_along_axis(blocks, largest, axis=1)[:, 0] / np.float32(-8)
        shifted = blocks * _inverse(scales)[:, None] + np.float32(8.5)
        codes = np.minimum(shifted, 15).astype(np.uint8)
        return np.hstack([_scale_bytes(scales), codes[:, :16] | codes[:, 16:] << 4])

    def dequantize(self, blocks: Bytes) -> Floats:
        codes = np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4])
        return (_scales(blocks) * (codes.astype(np.float32) - 8)).reshape(-1)


QUANTIZERS: dict[str, Quantizer] = {"Q8_0": Q8_0(), "Q4_0": Q4_0()}


def ggml_bytes(x: Floats, name: str) -> Bytes:
    """What the llama.cpp of this machine makes of x, in one of QUANTIZERS; no model file is needed.

    Raises: ModelError when llama.cpp is not installed.
    """
    (type_id,) = (number for number, tensor_type in TENSOR_TYPES.items() if tensor_type.name == name)
    rows = np.ascontiguousarray(x, np.float32).reshape(-1, BLOCK_SIZE)
    made = np.zeros((len(rows), QUANTIZERS[name].bytes_per_block), np.uint8)
    _ggml_quantize_chunk()(type_id, rows.ctypes.data, made.ctypes.data, 0, len(rows), BLOCK_SIZE, None)
    return made


@cache
def _ggml_quantize_chunk() -> Any:
    """The function of libggml-base: type, source, target, first weight, rows, weights a row, importance matrix."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = [Path(folder) / "lib" for folder in (spec.submodule_search_locations if spec else None) or []]
    found = sorted(path for folder in folders for path in folder.glob("*ggml-base*"))
    if not found:
        raise ModelError("llama.cpp is not installed here: `pip install 'llmlab-kit[llamacpp]'`.")
    function = ctypes.CDLL(str(found[0])).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return function


def _inverse(scales: Floats) -> Floats:
    """1 / scale, 0 for a block of zeros."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def _scale_bytes(scales: Floats) -> Bytes:
    """[num_blocks] -> [num_blocks, 2], float16, little endian."""
    return scales.astype("<f2")[:, None].view(np.uint8)


def _scales(blocks: Bytes) -> Floats:
    """[num_blocks, bytes_per_block] -> [num_blocks, 1]"""
    return np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
