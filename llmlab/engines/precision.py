"""How exactly an engine computes, from what its header says: which differences between two engines are to be expected.

This file must not know any engine.
"""

from __future__ import annotations

from typing import Literal

from llmlab.trace import Header

# From exact to coarse: float16 keeps 11 bits of a number, bfloat16 8, a quant 2 to 8 and a scale for each group.
Precision = Literal["float32", "float16", "bfloat16", "quantized"]

ORDER: tuple[Precision, ...] = ("float32", "float16", "bfloat16", "quantized")
_NAMES: dict[str, Precision] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def formats(header: Header) -> tuple[str, str]:
    """Of the weights, and of what is computed or kept in the KV cache: ("Q4_1", "float16"), ("float32", "float32").

    vLLM has one dtype for both; of llama.cpp the quant is that of the weights, the dtype that of the KV cache.
    """
    dtype = _NAMES.get((header.dtype or "").upper(), header.dtype or "")
    weights = _NAMES.get(header.quant or "", header.quant or dtype)
    return weights or "–", dtype or "–"


def precision(header: Header) -> Precision:
    """The coarsest of its formats; what the header does not tell counts as float32.

    >>> precision(Header(engine="llamacpp", quant="F32", dtype="f16")), precision(Header(engine="x", dtype="float32"))
    ('float16', 'float32')
    """
    kinds = [precision_of(name) for name in formats(header) if name != "–"]
    return max(kinds, key=ORDER.index, default="float32")


def precision_of(name: str) -> Precision:
    """Of one format, by its name as a dtype or a quant.

    >>> precision_of("F16"), precision_of("bfloat16"), precision_of("Q8_0")
    ('float16', 'bfloat16', 'quantized')
    """
    return next((kind for kind in ORDER if kind == _NAMES.get(name.upper(), name)), "quantized")
