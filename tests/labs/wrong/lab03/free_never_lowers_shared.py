"""A block with two owners stays at 2: it leaks when the last one leaves."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 55
SAYS = "Q4 fork: after free of the parent: block 6 has ref_count 2, but 1 block tables hold it (['c'])"


class BlockPool(BlockPool):
    def _drop(self, block):
        if self.ref_counts[block] == 1:
            self.ref_counts[block] = 0
            self.free_list.append(block)
