"""Copies a shared block that is full, too."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q4 copy on write: a shared block that is full is never written again: take a new block, copy nothing"


class BlockPool(BlockPool):
    def append(self, seq_id, num_tokens=1):
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        num_new = -(-(num_held + num_tokens) // self.block_size) - len(table)
        is_shared = self.ref_counts[table[-1]] > 1
        self._need(num_new + is_shared)
        copies = []
        if is_shared:
            old, table[-1] = table[-1], self._take()
            self._drop(old)
            copies.append(BlockCopy(old, table[-1]))
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return copies
