"""The length advances with the append of every layer."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q3 cached equals uncached: after 5 tokens append() returns keys of shape (10, 3, 64), expected (5, 3, 64): all "
    "tokens so far, this layer only"
)


class KVCache(KVCache):
    def __init__(self, num_layers, max_tokens, num_kv_heads, head_dim, dtype=np.float32):
        self.kv = np.zeros((num_layers, 2, num_layers * max_tokens, num_kv_heads, head_dim), dtype)
        self.length = 0

    def append(self, layer, k, v):
        first, self.length = self.length, self.length + len(k)
        self.kv[layer, :, first : self.length] = k, v
        return self.kv[layer, 0, : self.length], self.kv[layer, 1, : self.length]

    @property
    def num_computed_tokens(self):
        return self.length
