"""append writes into the shared block."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q4 copy on write: the child writes token 7 into block 6, which the parent still reads: copy on write"


class BlockPool(BlockPool):
    def append(self, seq_id, num_tokens=1):
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        num_new = -(-(num_held + num_tokens) // self.block_size) - len(table)
        self._need(num_new)
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return []
