"""A GGUF file as a model folder that transformers and vLLM load, and as a GGUF file of unquantized weights.

Weights are dequantized to float32, so both sides compute with the very same numbers. This file must not know where the
result is kept (store.py) or when it is wanted (model.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError
from llmlab.models import tokenizer_files
from llmlab.models.config import ModelConfig, family_of
from llmlab.models.gguf_file import GgufHeader
from llmlab.models.gguf_writer import copy_metadata, write_gguf
from llmlab.models.hf_to_gguf import ROPE_FREQS, rope_factors
from llmlab.models.quants import QUANTS
from llmlab.models.safetensors_file import write_float32
from llmlab.models.weights import GgufWeights, read_gguf_tensor

Floats = NDArray[np.float32]


def convert(header: GgufHeader, folder: Path, *, config: ModelConfig, progress: Callable[[int], object]) -> None:
    """Fills the empty `folder` with config, tokenizer and float32 weights; `progress` is told the weights done.

    Raises ModelError for another architecture, a missing tensor, a tokenizer without a tokenizer.json form.
    """
    _refuse_split(header)
    weights = GgufWeights(header, config)
    settings = hf_config(header, config)

    def read(name: str) -> Floats:
        tensor = weights.read(name)
        progress(tensor.size)
        return tensor

    tokenizer_files.write_hf(header, folder, config.max_model_len)
    write_float32(folder / "model.safetensors", weights.shapes, read)
    _write_json(folder / "config.json", settings)
    generation = {key: value for key, value in settings.items() if key.endswith("_token_id")}
    _write_json(folder / "generation_config.json", generation)


def dequantize(header: GgufHeader, target: Path, *, quant: str, progress: Callable[[int], object]) -> None:
    """Writes the same model with F32, F16 or BF16 matrices; works for every architecture, the metadata is kept."""
    _refuse_split(header)

    def read(name: str) -> Floats:
        tensor = read_gguf_tensor(header, name)
        progress(tensor.size)
        return tensor

    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    metadata = copy_metadata(header) | {"general.file_type": QUANTS[quant].file_type}
    write_gguf(target, header.architecture, metadata=metadata, shapes=shapes, quant=quant, read=read)


def hf_config(header: GgufHeader, config: ModelConfig) -> dict[str, Any]:
    """config.json of the model, in the form that transformers 4 and 5 both read."""
    family = family_of(config, header.path)
    settings: dict[str, Any] = {
        "architectures": [family.hf_class],
        "model_type": family.name,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_model_len,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(header, config),
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if f"tokenizer.ggml.{key}_token_id" in header:
            settings[f"{name}_token_id"] = header[f"tokenizer.ggml.{key}_token_id"]
    return settings


def _rope_scaling(header: GgufHeader, config: ModelConfig) -> dict[str, Any] | None:
    """config.json's rope_scaling; llama3's is found again from the tensor that GGUF keeps instead."""
    if ROPE_FREQS not in header.tensors:
        return dict(config.rope_scaling) or None
    stored = read_gguf_tensor(header, ROPE_FREQS)
    # the constants of every Llama 3.1, 3.2 and 3.3; the largest factor is the one of the lowest frequencies
    scaling = {
        "rope_type": "llama3",
        "factor": float(stored.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    rebuilt = rope_factors(replace(config, rope_scaling=scaling))
    if rebuilt is None or not np.allclose(rebuilt, stored, rtol=1e-4):
        raise ModelError(
            f"{header.path}: its rope frequencies are not Llama 3's, and GGUF does not keep the numbers behind them."
            " Load the model folder that the file was made from."
        )
    return scaling


def _refuse_split(header: GgufHeader) -> None:
    parts = header.get("split.count", 1)
    if parts > 1:
        raise ModelError(
            f"{header.path} is one of {parts} parts; llmlab converts whole files. Join them with"
            f" `llama-gguf-split --merge {header.path} whole.gguf` and load whole.gguf."
        )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
