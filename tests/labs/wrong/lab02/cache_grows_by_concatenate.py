"""Right, but copies the whole cache in each step."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = (
    "Q3 allocated once: the cache was copied while it grew: write in place, return views (a copy per step makes "
    "decode O(n^2))"
)


class KVCache:
    def __init__(self, num_layers, max_tokens, num_kv_heads, head_dim, dtype=np.float32):
        self.room = (num_layers, 2, max_tokens, num_kv_heads, head_dim)
        self.max_tokens, self.dtype = max_tokens, dtype
        self.kv = [[np.zeros((0, num_kv_heads, head_dim), dtype)] * 2 for _ in range(num_layers)]

    def append(self, layer, k, v):
        if len(self.kv[layer][0]) + len(k) > self.max_tokens:
            raise ValueError("full")
        self.kv[layer] = [np.concatenate(pair) for pair in zip(self.kv[layer], (k, v), strict=True)]
        return tuple(self.kv[layer])

    @property
    def num_computed_tokens(self):
        return min(len(k) for k, _ in self.kv)

    @property
    def num_bytes(self):
        return int(np.prod(self.room)) * np.dtype(self.dtype).itemsize
