"""fork copies the table, not the counts."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 55
SAYS = "Q4 fork: after fork: block 6 has ref_count 1, but 2 block tables hold it (['p', 'c'])"


class BlockPool(BlockPool):
    def fork(self, parent_id, child_id):
        self.tables[child_id] = list(self.tables[parent_id])
        self.lengths[child_id] = self.lengths[parent_id]
