"""Eviction forgets to remove the hash."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q4 least recently freed first: a block of A was reused for y, yet its hash is still known: lookup "
    "would hand out y's KV as A's"
)


class PrefixBlockPool(PrefixBlockPool):
    def take(self):
        block, _ = self.free_blocks.popitem(last=False)
        self.ref_counts[block] = 1
        return block
