"""Counts the tokens of the layer that is furthest."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q3 cached equals uncached: within a step, after layer 0 of 0 to 2: num_computed_tokens is 5, expected 0: tokens "
    "that ALL layers have"
)


class KVCache(KVCache):
    @property
    def num_computed_tokens(self):
        return max(self.lengths)
