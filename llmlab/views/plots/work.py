"""How many operations a forward pass takes, and how many bytes it must move: from the shape of the model alone.

A lower bound: activations and what a kernel reads twice are left out. This file must not know charts or machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.models import ModelConfig, kv_bytes_per_token
from llmlab.models.fit import weights_bytes
from llmlab.models.tensors import attention_width, layer_weights, num_params


@dataclass(frozen=True, slots=True)
class Work:
    """Of one forward pass: floating-point operations, and bytes moved between memory and processor."""

    flops: float
    num_bytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte: where the pass stands on the x axis of a roofline."""
        return self.flops / self.num_bytes


def prefill_work(config: ModelConfig, num_tokens: int, *, quant: str = "F16", kv_element_bytes: int = 2) -> Work:
    """One prompt of so many tokens in one pass, with nothing in the cache, and the logits of its last token.

    flops = 2 x weights of the layers x n + 2 x vocab_size x hidden_size + 4 x num_layers x num_heads x head_dim
    x n (n + 1) / 2, since token i looks at i tokens. bytes = weights + n x KV of a token, written and read once.

    Source: Chowdhery et al. 2022 (PaLM), arXiv 2204.02311, appendix B: 2 N + 4 L H Q T operations a token, forward.
    """
    attention = 4 * attention_width(config) * num_tokens * (num_tokens + 1) / 2
    flops = 2.0 * layer_weights(config) * num_tokens + 2 * config.vocab_size * config.hidden_size + attention
    moved = 2 * num_tokens * kv_bytes_per_token(config, kv_element_bytes)
    return Work(flops, _weight_traffic(config, quant) + moved)


def decode_work(
    config: ModelConfig, batch_size: int, *, context: int, quant: str = "F16", kv_element_bytes: int = 2
) -> Work:
    """One token for each of `batch_size` sequences, each with `context` tokens in the KV cache after it.

    flops = batch x (2 x weights of the layers + 2 x vocab_size x hidden_size + 4 x num_layers x num_heads x head_dim
    x context). bytes = weights, read once for all, + batch x (context + 1) x KV of a token: all read, one written.

    Source: Pope et al. 2022, arXiv 2211.05102, section 2 (weights are shared by the batch, the KV cache is not).
    """
    matrices = 2 * (layer_weights(config) + config.vocab_size * config.hidden_size)
    flops = float(batch_size * (matrices + 4 * attention_width(config) * context))
    moved = batch_size * (context + 1) * kv_bytes_per_token(config, kv_element_bytes)
    return Work(flops, _weight_traffic(config, quant) + moved)


def _weight_traffic(config: ModelConfig, quant: str) -> float:
    """Bytes of the weights that a pass reads: all but an input embedding of its own, of which it looks up few rows."""
    looked_up = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    total = num_params(config)
    return weights_bytes(config, quant) * (total - looked_up) / total
