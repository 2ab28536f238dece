"""Old tokens are overwritten when the cache is full."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q3 allocated once: a ninth token was accepted by a cache of 8: raise ValueError"


class KVCache(KVCache):
    def append(self, layer, k, v):
        self.lengths[layer] = min(self.lengths[layer], self.kv.shape[2] - len(k))
        return super().append(layer, k, v)
