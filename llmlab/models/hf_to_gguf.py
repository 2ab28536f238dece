"""A model folder (config.json, tokenizer.json, *.safetensors) as one GGUF file; needs no torch.

This file must not know where the result is kept (store.py) or when it is wanted (model.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError
from llmlab.models import tokenizer_files
from llmlab.models.config import ModelConfig, family_of
from llmlab.models.gguf_writer import write_gguf
from llmlab.models.quants import QUANTS
from llmlab.models.tensors import gguf_name, interleave_halves, rope_heads
from llmlab.models.weights import HfWeights

Floats = NDArray[np.float32]
ROPE_FREQS = "rope_freqs.weight"


def convert(
    folder: Path, target: Path, *, config: ModelConfig, name: str, quant: str, progress: Callable[[int], object]
) -> None:
    """Writes `target` with F32, F16 or BF16 matrices; `progress` is told the number of weights done.

    Raises ModelError for another architecture, a missing tensor, a tokenizer that llama.cpp does not have.
    """
    architecture = family_of(config, folder).name
    weights = HfWeights(folder, config)
    shapes = {gguf_name(hf): shape for hf, shape in weights.shapes.items()}
    hf_names = {gguf_name(hf): hf for hf in weights.shapes}
    factors = rope_factors(config)
    if factors is not None:
        shapes[ROPE_FREQS] = factors.shape

    def read(tensor: str) -> Floats:
        if tensor == ROPE_FREQS and factors is not None:
            return factors
        rows = weights.read(hf_names[tensor])
        num_heads = rope_heads(hf_names[tensor], config)
        progress(rows.size)
        return interleave_halves(rows, num_heads) if num_heads else rows

    metadata = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": QUANTS[quant].file_type,
        "general.quantization_version": 2,
        **_config_metadata(config, architecture),
        **tokenizer_files.gguf_metadata(folder, config.vocab_size),
    }
    write_gguf(target, architecture, metadata=metadata, shapes=shapes, quant=quant, read=read)


def _config_metadata(config: ModelConfig, architecture: str) -> dict[str, Any]:
    values = {
        "vocab_size": config.vocab_size,
        "block_count": config.num_layers,
        "context_length": config.max_model_len,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
        **_rope_metadata(config),
    }
    return {f"{architecture}.{key}": value for key, value in values.items()}


def _rope_metadata(config: ModelConfig) -> dict[str, Any]:
    """rope.scaling keys; llama3 scaling is a tensor instead, see `rope_factors`."""
    scaling = config.rope_scaling
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in (None, "llama3"):
        return {}
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"Rope scaling {kind!r} is not converted. Known: linear, llama3, yarn. Load a ready-made .gguf of this"
            " model."
        )
    values = {"rope.scaling.type": kind, "rope.scaling.factor": float(scaling["factor"])}
    original = scaling.get("original_max_position_embeddings")
    return values | ({"rope.scaling.original_context_length": int(original)} if original else {})


def rope_factors(config: ModelConfig) -> Floats | None:
    """llama3 scaling as llama.cpp takes it: what each rotation frequency is divided by, [head_dim / 2]; else None.

    Source: transformers modeling_rope_utils.py _compute_llama3_parameters.
    """
    scaling = config.rope_scaling
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    factor, low, high = (float(scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = float(scaling["original_max_position_embeddings"])
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    wavelengths = 2 * math.pi * np.float32(config.rope_theta) ** exponents
    smooth = (original / wavelengths - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1.0, np.where(wavelengths > original / low, factor, blended))
    return factors.astype(np.float32)
