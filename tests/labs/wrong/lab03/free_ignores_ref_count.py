"""free() gives shared blocks back to the free list."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = "Q4 fork: after free of the parent: block 6 has ref_count 0, but 1 block tables hold it (['c'])"


class BlockPool(BlockPool):
    def free(self, seq_id):
        del self.lengths[seq_id]
        for block in self.tables.pop(seq_id):
            self.ref_counts[block] = 0
            self.free_list.append(block)
