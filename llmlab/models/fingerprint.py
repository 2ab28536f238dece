"""One name for one set of weights, whatever file they lie in.

Two engines that load files of equal fingerprint compute with the very same numbers. This file must not know file
formats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np

from llmlab.models.weights import Weights


def fingerprint(weights: Weights, progress: Callable[[int], object] = lambda num_weights: None) -> str:
    """`sha256:...` over the tensors in the order of their transformers names.

    Each tensor adds its name, its shape and its weights as little-endian float32 in transformers' row order. Equal for
    a model folder and for a GGUF file made from it without loss; tokenizer and config are not part of it.
    """
    digest = hashlib.sha256()
    for name in sorted(weights.shapes):
        digest.update(json.dumps([name, list(weights.shapes[name])]).encode())
        tensor = np.ascontiguousarray(weights.read(name), "<f4")
        digest.update(tensor.data)
        progress(tensor.size)
    return f"sha256:{digest.hexdigest()}"
