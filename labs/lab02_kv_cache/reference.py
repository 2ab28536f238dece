"""The solution of lab 2: the definitions of lab.py with their solutions. Made from lab.py."""

# ruff: noqa: F401

import numpy as np

import llmlab
import llmlab.views.plots as plots
from llmlab.models import ModelConfig


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal grouped-query attention of the last num_new tokens; the shape of q."""
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    sees = np.arange(total) <= np.arange(total - num_new, total)[:, None]
    scores = np.where(sees, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v)


class KVCache:
    """Keys and values of one sequence, in all layers."""

    def __init__(
        self, num_layers: int, max_tokens: int, num_kv_heads: int, head_dim: int, dtype: type = np.float32
    ) -> None:
        self.kv = np.zeros((num_layers, 2, max_tokens, num_kv_heads, head_dim), dtype)
        self.lengths = [0] * num_layers

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write k, v: [num_new, num_kv_heads, head_dim]; views of all keys and all values of this layer so far."""
        first = self.lengths[layer]
        end = first + len(k)
        if end > self.kv.shape[2]:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.kv.shape[2]}")
        self.kv[layer, 0, first:end] = k
        self.kv[layer, 1, first:end] = v
        self.lengths[layer] = end
        return self.kv[layer, 0, :end], self.kv[layer, 1, :end]

    @property
    def num_computed_tokens(self) -> int:
        """Tokens that all layers have."""
        return min(self.lengths)

    @property
    def num_bytes(self) -> int:
        """Of the whole room, used or not."""
        return self.kv.nbytes


class FromMyCache:
    """An attention for one request: it calls layer 0, layer 1, ... in each step."""

    def __init__(self) -> None:
        self.cache, self.num_calls = KVCache(30, 256, 3, 64), 0

    def __call__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        layer, self.num_calls = self.num_calls % 30, self.num_calls + 1
        return attention(q, *self.cache.append(layer, k[-len(q) :], v[-len(q) :]))


def kv_bytes(num_tokens: int, cfg: ModelConfig, bytes_per_element: int = 2) -> int:
    """Bytes of the keys and values of so many tokens, in all layers."""
    return 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element * num_tokens


def forward_flops(cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int) -> int:
    """Operations of one pass over the new tokens of one sequence, with the logits of the last one.

    The matrices of a layer: q and o [hidden_size, num_heads * head_dim], k and v [hidden_size, num_kv_heads *
    head_dim]; gate, up and down [hidden_size, intermediate_size].
    """
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    num_pairs = num_new_tokens * num_computed_tokens + num_new_tokens * (num_new_tokens + 1) // 2
    matrices = 2 * cfg.num_layers * layer_weights * num_new_tokens
    logits = 2 * cfg.vocab_size * cfg.hidden_size
    return matrices + 4 * cfg.num_layers * width * num_pairs + logits


def forward_bytes(
    cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int, weight_bytes: float, bytes_per_element: int = 2
) -> float:
    """Bytes that this pass moves: all weights once, keys and values read, keys and values written."""
    num_read, num_written = num_computed_tokens + num_new_tokens, num_new_tokens
    kv_token = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element
    return weight_bytes + (num_read + num_written) * kv_token


reflection = [
    "Decode gains: it does 1 operation for each byte that it moves, prefill of 100 tokens about 79, which is at the "
    "roof of arithmetic already.",
    "The weights are read once for all 16 sequences, so each token costs less traffic; each sequence still reads the "
    "23,040 bytes a token of its own KV.",
]
