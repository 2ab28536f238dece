"""Which tensors a model has, under both their names, and how the rows of q and k are ordered in each format.

This file must not open files. transformers: `model.layers.0.self_attn.q_proj.weight`; GGUF: `blk.0.attn_q.weight`.

Source: conversion/llama.py and gguf/tensor_mapping.py of llama.cpp (libllama 0.5.0).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llmlab.models.config import FAMILIES, ModelConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_MODEL_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"


def gguf_name(hf_name: str) -> str:
    """The GGUF name of a transformers tensor; KeyError for a name that no family has.

    >>> gguf_name("model.layers.7.mlp.up_proj.weight")
    'blk.7.ffn_up.weight'
    """
    stem, _, kind = hf_name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    return f"blk.{layer[1]}.{_LAYER_NAMES[layer[2]]}.{kind}" if layer else f"{_MODEL_NAMES[stem]}.{kind}"


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """transformers name -> shape of every tensor that the model must have, in file order.

    A tied output matrix is not listed: it is the embedding.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    q_rows, kv_rows = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q_rows, hidden),
        "self_attn.k_proj.weight": (kv_rows, hidden),
        "self_attn.v_proj.weight": (kv_rows, hidden),
        "self_attn.o_proj.weight": (hidden, q_rows),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.attention_bias:
        layer |= {f"self_attn.{name}_proj.bias": (q_rows if name == "q" else kv_rows,) for name in "qkv"}
        if config.family != "qwen2":
            layer["self_attn.o_proj.bias"] = (hidden,)
    if config.mlp_bias:
        layer |= {f"mlp.{name}_proj.bias": (hidden if name == "down" else inner,) for name in ("gate", "up", "down")}
    if config.family in FAMILIES and FAMILIES[config.family].has_qk_norm:
        layer |= {f"self_attn.{name}_norm.weight": (config.head_dim,) for name in "qk"}

    tensors: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for index in range(config.num_layers):
        tensors |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    tensors["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        tensors[OUTPUT] = (config.vocab_size, hidden)
    return tensors


def num_params(config: ModelConfig) -> int:
    """Number of weights, tied embeddings counted once; exact for the families that llmlab converts."""
    return sum(math.prod(shape) for shape in expected_tensors(config).values())


def layer_weights(config: ModelConfig) -> int:
    """Weights of the matrices that every token goes through."""
    shapes = (shape for name, shape in expected_tensors(config).items() if name not in (EMBEDDING, OUTPUT))
    return sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)


def attention_width(config: ModelConfig) -> int:
    """Query numbers of a token in all layers. Every query head computes, also where heads share their keys (GQA)."""
    return config.num_layers * config.num_heads * config.head_dim


def rope_heads(hf_name: str, config: ModelConfig) -> int:
    """Number of heads whose rows must be reordered between the formats, 0 for a tensor that stays as it is."""
    if config.family not in FAMILIES or not FAMILIES[config.family].permutes_rope:
        return 0
    if ".q_proj." in hf_name:
        return config.num_heads
    return config.num_kv_heads if ".k_proj." in hf_name else 0


def interleave_halves(rows: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """The rows of q or k in llama.cpp's order: [num_heads * head_dim, ...] with pairs next to each other.

    Rows 0 1 2 3 of a head become 0 2 1 3: transformers rotates row i with row i + head_dim / 2, llama.cpp with its
    neighbour.
    """
    half = rows.shape[0] // num_heads // 2
    return rows.reshape(num_heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def separate_halves(rows: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """The inverse of `interleave_halves`: the rows of q or k in the order of transformers."""
    half = rows.shape[0] // num_heads // 2
    return rows.reshape(num_heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
