"""Copy on write without lowering the count of the old block."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q4 copy on write: after copy on write: block 6 has ref_count 2, but 1 block tables hold it (['p'])"


class BlockPool(BlockPool):
    def append(self, seq_id, num_tokens=1):
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        num_new = -(-(num_held + num_tokens) // self.block_size) - len(table)
        is_shared = num_held % self.block_size > 0 and self.ref_counts[table[-1]] > 1
        self._need(num_new + is_shared)
        copies = []
        if is_shared:
            copies.append(BlockCopy(table[-1], new := self._take()))
            table[-1] = new
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return copies
