"""Keeps float32, whatever was asked for."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q3 cached equals uncached: num_bytes of 3 layers, 8 tokens, float16, 3 KV heads of 64 is 36,864, expected 18,432"
)


class KVCache(KVCache):
    def __init__(self, num_layers, max_tokens, num_kv_heads, head_dim, dtype=np.float32):
        super().__init__(num_layers, max_tokens, num_kv_heads, head_dim)
