"""append looks at the tokens before, not after: the new token has no room when the last block was full."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 55
SAYS = "Q3 append: 5 tokens in blocks of 4: 1 block, expected 2"


class BlockPool(BlockPool):
    def append(self, seq_id, num_tokens=1):
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        copies = []
        if num_held % self.block_size > 0 and self.ref_counts[table[-1]] > 1:
            self._need(1)
            old, table[-1] = table[-1], self._take()
            self._drop(old)
            copies.append(BlockCopy(old, table[-1]))
        num_new = -(-num_held // self.block_size) - len(table)
        self._need(num_new)
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return copies
