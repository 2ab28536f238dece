"""The quantization names of GGUF files, and what one block of each tensor type holds.

Two tables and the sizes that follow from them. This file must not know files or engines.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.errors import ModelError, unknown


@dataclass(frozen=True, slots=True)
class TensorType:
    """One ggml tensor type: `block_size` weights are stored in `block_bytes` bytes."""

    name: str
    block_size: int
    block_bytes: int


# ggml type id -> layout. Source: ggml/include/ggml.h enum ggml_type and gguf.constants.GGML_QUANT_SIZES (gguf 0.19.0).
TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 40),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
}


@dataclass(frozen=True, slots=True)
class Quant:
    """One kind of GGUF file that `Model.gguf` can make.

    `file_type` is llama.cpp's number for it, `bits` the mean bits per weight of the layers (not of the embedding).
    """

    name: str
    file_type: int
    bits: float

    @property
    def is_float(self) -> bool:
        """True for F32, F16 and BF16: written directly, without llama.cpp's quantizer."""
        return self.name in ("F32", "F16", "BF16")


# Source: include/llama.h enum llama_ftype. The types that need an importance matrix (IQ1, IQ2, IQ3) are left out.
QUANTS = {
    quant.name: quant
    for quant in (
        Quant("F32", 0, 32.0),
        Quant("BF16", 32, 16.0),
        Quant("F16", 1, 16.0),
        Quant("Q8_0", 7, 8.5),
        Quant("Q6_K", 18, 6.5625),
        Quant("Q5_K_M", 17, 5.7),
        Quant("Q5_K_S", 16, 5.5),
        Quant("Q5_1", 9, 6.0),
        Quant("Q5_0", 8, 5.5),
        Quant("Q4_K_M", 15, 4.9),
        Quant("Q4_K_S", 14, 4.6),
        Quant("Q4_1", 3, 5.0),
        Quant("Q4_0", 2, 4.5),
        Quant("IQ4_NL", 25, 4.5),
        Quant("IQ4_XS", 30, 4.3),
        Quant("Q3_K_L", 13, 4.2),
        Quant("Q3_K_M", 12, 3.9),
        Quant("Q3_K_S", 11, 3.5),
        Quant("Q2_K", 10, 3.1),
    )
}


def parse_quant(name: str) -> Quant:
    """The quant of that name, in any case.

    >>> parse_quant("q4_k_m").file_type
    15

    Raises ModelError with the list of names for any other.
    """
    quant = QUANTS.get(name.upper())
    if quant is None:
        raise ModelError(unknown("quant", name.upper(), QUANTS))
    return quant


def file_type_name(file_type: int | None) -> str | None:
    """The quant name of llama.cpp's file type number, None when it is none that llmlab makes."""
    return next((quant.name for quant in QUANTS.values() if quant.file_type == file_type), None)
