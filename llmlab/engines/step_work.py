"""The work of a forward pass, as a point on the roofline.

This file must not know any engine.
"""

from __future__ import annotations

from llmlab.engines.cost_model import Work
from llmlab.models import kv_bytes_per_token
from llmlab.models.config import ModelConfig
from llmlab.models.tensors import attention_width, layer_weights


class StepWork:
    """Floating-point operations and bytes moved by a step: its point on the roofline.

    flops = 2 x weights of the layers x new tokens + 2 x vocab_size x hidden_size x sampled rows + 4 x num_layers
    x num_heads x head_dim x (sum over new tokens of the tokens they look at). bytes = weights, read once, + KV of all
    tokens looked at by each sequence, + KV written. A lower bound: activations are left out.

    Source: Chowdhery et al. 2022 (PaLM), appendix B; llmlab/views/plots/work.py has the same for one shape of batch.
    """

    def __init__(self, config: ModelConfig, weight_bytes: int, element_bytes: int) -> None:
        self._layer_weights = layer_weights(config)
        self._output_weights = config.vocab_size * config.hidden_size
        self._attention = 4 * attention_width(config)
        self._weight_bytes = weight_bytes
        self._kv_bytes = kv_bytes_per_token(config, element_bytes)

    def of(self, work: Work, num_sampled: int) -> dict[str, float]:
        """{"flops": ..., "bytes": ...} of a forward pass."""
        matrices = self._layer_weights * work.num_tokens + self._output_weights * num_sampled
        flops = 2.0 * matrices + self._attention * work.num_attended
        moved = self._weight_bytes + self._kv_bytes * (work.num_read + work.num_tokens)
        return {"flops": flops, "bytes": float(moved)}
