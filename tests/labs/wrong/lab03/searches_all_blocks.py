"""No free list: looks at the counts of all blocks for each one that it takes."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 95
SAYS = (
    "Q5 time does not grow with the pool: 300 calls take {}x longer in a pool of 60,000 blocks than in one of 200: keep"
)


class BlockPool(BlockPool):
    def _take(self):
        block = self.ref_counts.index(0)
        self.free_list.remove(block)
        self.ref_counts[block] = 1
        return block
