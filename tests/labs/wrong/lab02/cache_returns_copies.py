"""Writes in place, and hands out copies."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q3 allocated once: the cache was copied while it grew: write in place, return views"


class KVCache(KVCache):
    def append(self, layer, k, v):
        return tuple(x.copy() for x in super().append(layer, k, v))
