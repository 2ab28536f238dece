"""What a student of lab 6 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

import math
from collections.abc import Sequence

import numpy as np


class Q8_0:
    name = "Q8_0"
    bytes_per_block = 34

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Q2: [..., 32 n] float32 -> [num_blocks, 34] uint8."""
        raise NotImplementedError("Q2")  # about 8 lines

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Q4: [num_blocks, 34] uint8 -> [num_blocks * 32] float32."""
        raise NotImplementedError("Q4")  # about 3 lines


class Q4_0:
    name = "Q4_0"
    bytes_per_block = 18

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Q3: [..., 32 n] float32 -> [num_blocks, 18] uint8."""
        raise NotImplementedError("Q3")  # about 8 lines

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Q4: [num_blocks, 18] uint8 -> [num_blocks * 32] float32."""
        raise NotImplementedError("Q4")  # about 4 lines


def model_bytes(tensors: Sequence[tuple[tuple[int, ...], str]]) -> int:
    """Q5: bytes of all tensors; each is (shape, "F32" | "F16" | "Q8_0" | "Q4_0")."""
    raise NotImplementedError("Q5")  # about 2 lines


reflection = ["", ""]
