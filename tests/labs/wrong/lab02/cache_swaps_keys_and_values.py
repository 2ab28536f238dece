"""Returns values, keys."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q3 cached equals uncached: after 5 tokens the keys of layer 0 differ from those that were appended, first at "
    "token 0: keys and values are swapped"
)


class KVCache(KVCache):
    def append(self, layer, k, v):
        return super().append(layer, k, v)[::-1]
