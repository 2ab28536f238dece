"""The decoder of Llama, Qwen2 and Qwen3: from token ids to hidden states to logits. Read this third.

This file must not know requests, blocks or sampling: where keys and values lie is torch_attention.py.

Source: transformers modeling_llama.py, modeling_qwen2.py, modeling_qwen3.py; Su et al., RoFormer, 2021 (RoPE).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.engines.phases import Phases
from llmlab.engines.torch_attention import AttentionLayer, Batch, PagedKv, paged_attention
from llmlab.engines.torch_weights import Layer, Weights
from llmlab.models.config import ModelConfig

Watch = Callable[[int, Tensor], None]


class BrokenOff(Exception):
    """A forward pass was interrupted: its KV is not to be used."""


class Decoder:
    """One model on one device."""

    def __init__(self, folder: Path, config: ModelConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.weights = Weights(folder, config, device=device, dtype=dtype)
        self.attention: AttentionLayer = paged_attention
        self.phases = Phases(on=device.type == "cpu")
        self.interrupted = False  # set by another thread
        self._cos, self._sin = _rotations(config, device, dtype)

    def new_kv(self, num_blocks: int, block_size: int) -> PagedKv:
        """An empty KV cache for this model."""
        c = self.config
        return PagedKv(
            c.num_layers, num_blocks, block_size, c.num_kv_heads, c.head_dim, device=self.device, dtype=self.dtype
        )

    def forward(
        self, batch: Batch, kv: PagedKv, *, watch: Watch | None = None, keep: list[Tensor] | None = None
    ) -> Tensor:
        """Hidden states after the last norm, [num_rows, hidden_size]; the KV of the rows is written.

        `watch` gets the layer and its queries, [num_rows, num_heads, head_dim], before each attention; `keep` the
        hidden state before each layer and after the last.

        Raises: BrokenOff when it was interrupted.
        """
        weights, eps = self.weights, self.config.rms_norm_eps
        self.phases.start()
        x = F.embedding(batch.token_ids, weights.embedding)
        cos, sin = self._cos[batch.positions, None], self._sin[batch.positions, None]
        self.phases.mark("embedding")
        for layer in weights.layers:
            if self.interrupted:
                raise BrokenOff
            if keep is not None:
                keep.append(x)
            x = x + self._attend(layer, _norm(x, layer.input_norm, eps), cos, sin, batch, kv, watch)
            x = x + self._mlp(layer, _norm(x, layer.post_norm, eps), batch)
            self.phases.mark("mlp")
        if keep is not None:
            keep.append(x)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] -> [num_rows, vocab_size], float32."""
        logits = self.weights.output(hidden).float()
        self.phases.mark("output")
        return logits

    def final_norm(self, x: Tensor) -> Tensor:
        """The last norm; of a hidden state from between two layers, it is the logit lens."""
        return _norm(x, self.weights.final_norm, self.config.rms_norm_eps)

    def _attend(
        self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, batch: Batch, kv: PagedKv, watch: Watch | None
    ) -> Tensor:
        num_q, num_kv, eps = self.config.num_heads, self.config.num_kv_heads, self.config.rms_norm_eps
        qkv = _linear(layer, "self_attn.qkv_proj", x, batch).view(len(x), num_q + 2 * num_kv, -1)
        qk, v = qkv[:, : num_q + num_kv], qkv[:, num_q + num_kv :]
        if layer.q_norm is not None and layer.k_norm is not None:
            qk = torch.cat([_norm(qk[:, :num_q], layer.q_norm, eps), _norm(qk[:, num_q:], layer.k_norm, eps)], 1)
        qk = _rotated(qk, cos, sin)
        q = qk[:, :num_q]
        kv.write(layer.index, batch.slots, qk[:, num_q:], v)
        self.phases.mark("qkv")
        if watch is not None:
            watch(layer.index, q)
        attended = self.attention(layer.index, q, kv, batch)
        self.phases.mark("attention")
        attended = _linear(layer, "self_attn.o_proj", attended.reshape(len(x), -1), batch)
        self.phases.mark("qkv")
        return attended

    def _mlp(self, layer: Layer, x: Tensor, batch: Batch) -> Tensor:
        gate, up = _linear(layer, "mlp.gate_up_proj", x, batch).chunk(2, dim=-1)
        return _linear(layer, "mlp.down_proj", F.silu(gate) * up, batch)


def _linear(layer: Layer, name: str, x: Tensor, batch: Batch) -> Tensor:
    y = layer.linear[name](x)
    for rows, adapter in batch.adapters:
        adapter.add_to(y, x, rows, layer.index, name)
    return y


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dim. Source: Zhang and Sennrich, 2019."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE: element i of a head turns with element i + head_dim / 2. x: [num_rows, num_heads, head_dim]."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _rotations(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the angle of each position and element, [max_model_len, head_dim] each.

    The first half of a head takes the sine negative: rotated = x cos + (x with its halves swapped) sin.
    """
    inverse = 1.0 / config.rope_theta ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)
    factor = 1.0
    if config.rope_scaling:
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaling = {"rope_theta": config.rope_theta, **config.rope_scaling}
        kind = scaling["rope_type"] = str(scaling.get("rope_type") or scaling.get("type"))
        seen = SimpleNamespace(
            rope_parameters=scaling, head_dim=config.head_dim, hidden_size=config.hidden_size,
            num_attention_heads=config.num_heads, max_position_embeddings=config.max_model_len,
            standardize_rope_params=lambda: None,
        )  # fmt: skip
        inverse, factor = ROPE_INIT_FUNCTIONS[kind](seen, torch.device("cpu"))
    angles = torch.outer(torch.arange(config.max_model_len, dtype=torch.float32), inverse.float())
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.cat([cos, cos], 1).to(device, dtype), torch.cat([-sin, sin], 1).to(device, dtype)
