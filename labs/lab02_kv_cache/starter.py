"""What a student of lab 2 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

import numpy as np

import llmlab
import llmlab.views.plots as plots
from llmlab.models import ModelConfig


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal grouped-query attention of the last num_new tokens; the shape of q."""
    raise NotImplementedError("Q2")  # about 10 lines


class KVCache:
    """Keys and values of one sequence, in all layers."""

    def __init__(
        self, num_layers: int, max_tokens: int, num_kv_heads: int, head_dim: int, dtype: type = np.float32
    ) -> None:
        raise NotImplementedError("Q3")  # about 2 lines

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write k, v: [num_new, num_kv_heads, head_dim]; views of all keys and all values of this layer so far."""
        raise NotImplementedError("Q3")  # about 8 lines

    @property
    def num_computed_tokens(self) -> int:
        """Tokens that all layers have."""
        raise NotImplementedError("Q3")  # about 1 line

    @property
    def num_bytes(self) -> int:
        """Of the whole room, used or not."""
        raise NotImplementedError("Q3")  # about 1 line


class FromMyCache:
    """An attention for one request: it calls layer 0, layer 1, ... in each step."""

    def __init__(self) -> None:
        self.cache, self.num_calls = KVCache(30, 256, 3, 64), 0

    def __call__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        layer, self.num_calls = self.num_calls % 30, self.num_calls + 1
        return attention(q, *self.cache.append(layer, k[-len(q) :], v[-len(q) :]))


def kv_bytes(num_tokens: int, cfg: ModelConfig, bytes_per_element: int = 2) -> int:
    """Bytes of the keys and values of so many tokens, in all layers."""
    raise NotImplementedError("Q4")  # about 1 line


def forward_flops(cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int) -> int:
    """Operations of one pass over the new tokens of one sequence, with the logits of the last one.

    The matrices of a layer: q and o [hidden_size, num_heads * head_dim], k and v [hidden_size, num_kv_heads *
    head_dim]; gate, up and down [hidden_size, intermediate_size].
    """
    raise NotImplementedError("Q5")  # about 7 lines


def forward_bytes(
    cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int, weight_bytes: float, bytes_per_element: int = 2
) -> float:
    """Bytes that this pass moves: all weights once, keys and values read, keys and values written."""
    raise NotImplementedError("Q5")  # about 3 lines


reflection = ["", ""]
