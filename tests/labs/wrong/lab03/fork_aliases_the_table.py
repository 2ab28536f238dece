"""Parent and child hold the same list object."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q4 copy on write: append to the child changed the parent's block table"


class BlockPool(BlockPool):
    def fork(self, parent_id, child_id):
        self.tables[child_id] = self.tables[parent_id]
        self.lengths[child_id] = self.lengths[parent_id]
        for block in self.tables[child_id]:
            self.ref_counts[block] += 1
