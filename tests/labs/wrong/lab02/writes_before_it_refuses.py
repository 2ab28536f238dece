"""Notices that the cache is full when half is written."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q3 allocated once: a refusal changed layer {}: count first, write afterwards"


class KVCache(KVCache):
    def append(self, layer, k, v):
        for i in range(len(k)):
            super().append(layer, k[i : i + 1], v[i : i + 1])
        return super().append(layer, k[:0], v[:0])
