"""The weights of the torch engine: matrices from the folder of a model, and LoRA adapters that lie beside them.

Read this second: torch_model.py says what is computed with them. This file must not know requests or the KV cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from llmlab.errors import EngineError, ModelError
from llmlab.models.config import FAMILIES, ModelConfig
from llmlab.models.lora import scaled_pairs
from llmlab.models.tensors import EMBEDDING, OUTPUT, expected_tensors
from llmlab.models.weights import HfWeights, stored_tensors

# Matrices that read the same input are one: fewer and larger products. name -> its parts, from top to bottom
STACKS = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
# oneDNN reorders a matrix once, for this many rows; measured on a CPU with AVX2: 1.2 to 2.3 times as fast from 2 rows
# on, and no slower with 1.
PACKED_FOR_ROWS = 16


class Linear:
    """y = x W^T + b. x: [num_rows, num_in], W: [num_out, num_in]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.num_bytes, self._bias = weight.nbytes, bias
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.enabled
        if self._packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR_ROWS)
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
            return packed
        return F.linear(x, self._weight, self._bias)


class Layer:
    """One decoder layer. The norms are vectors, [hidden_size] or [head_dim]."""

    def __init__(self, index: int, take: Any) -> None:
        self.index = index
        self.input_norm: Tensor = take("input_layernorm.weight")
        self.post_norm: Tensor = take("post_attention_layernorm.weight")
        self.q_norm: Tensor | None = take("self_attn.q_norm.weight")
        self.k_norm: Tensor | None = take("self_attn.k_norm.weight")
        self.linear = {name: _stacked(take, parts) for name, parts in STACKS.items()}


class Weights:
    """All weights of one model on one device.

    Raises: ModelError when files are missing or broken, EngineError for a family that this engine does not know.
    """

    def __init__(self, folder: Path, config: ModelConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        if config.family not in FAMILIES:
            raise EngineError(
                f"The torch engine computes {', '.join(FAMILIES)}; {folder.name} is {config.family!r}. "
                "Use `-e vllm` or `-e llamacpp`."
            )
        HfWeights(folder, config)  # raises when a tensor is missing or has another shape
        stored = stored_tensors(folder)
        opened = {path: safe_open(str(path), "pt") for path in {tensor.path for tensor in stored.values()}}
        self._files = {name: opened[tensor.path] for name, tensor in stored.items()}
        self._expected, self._device, self._dtype = expected_tensors(config), device, dtype
        self.embedding: Tensor = self._take(EMBEDDING)
        self.layers = [
            Layer(i, lambda name, i=i: self._take(f"model.layers.{i}.{name}")) for i in range(config.num_layers)
        ]
        self.final_norm: Tensor = self._take("model.norm.weight")
        self.output = Linear(self.embedding if config.tie_embeddings else self._take(OUTPUT))
        self._files.clear()

    @property
    def num_bytes(self) -> int:
        """As they lie in memory; a packed output matrix is no longer the embedding."""
        linears = [linear for layer in self.layers for linear in layer.linear.values()]
        tied = self.output._weight is self.embedding
        return self.embedding.nbytes + sum(x.num_bytes for x in linears) + (0 if tied else self.output.num_bytes)

    def _take(self, name: str) -> Any:
        """A tensor; None for a bias or a norm that this model does not have."""
        if name not in self._expected:
            return None
        file: Any = self._files[name]
        return file.get_tensor(name).to(self._device, self._dtype)


def _stacked(take: Any, parts: tuple[str, ...]) -> Linear:
    weights = [take(f"{part}.weight") for part in parts]
    biases = [take(f"{part}.bias") for part in parts]
    bias = torch.cat(biases) if biases[0] is not None else None
    return Linear(weights[0] if len(weights) == 1 else torch.cat(weights), bias)


class Adapter:
    """A LoRA adapter: for some matrices, y += (x A^T) B^T. A: [rank, num_in], B, scaled: [num_part, rank].

    Raises: ModelError when its files are not there or belong to another model.
    """

    def __init__(self, path: str, config: ModelConfig, *, device: torch.device, dtype: torch.dtype) -> None:
        pairs, shapes = scaled_pairs(path, config, "the torch engine"), expected_tensors(config)
        # (layer, name of the stack) -> (first row, A, B)
        self.parts: dict[tuple[int, str], list[tuple[int, Tensor, Tensor]]] = {}
        for layer in range(config.num_layers):
            for stack, names in STACKS.items():
                first = 0
                for target in [f"model.layers.{layer}.{name}.weight" for name in names]:
                    if target in pairs:
                        a, b = (torch.from_numpy(matrix).to(device, dtype) for matrix in pairs.pop(target))
                        self.parts.setdefault((layer, stack), []).append((first, a, b))
                    first += shapes[target][0]
        if pairs:
            raise ModelError(
                f"{path} changes {next(iter(pairs))!r}, which the torch engine cannot. Train the adapter on linear "
                "layers of the decoder."
            )

    def add_to(self, y: Tensor, x: Tensor, rows: Tensor, layer: int, stack: str) -> None:
        """What it adds to these rows of y = W x."""
        for first, a, b in self.parts.get((layer, stack), ()):
            y[rows, first : first + b.shape[0]] += F.linear(F.linear(x[rows], a), b)
