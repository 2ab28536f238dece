"""num_tokens // block_size: the partly filled last block is missing."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 35
SAYS = "Q2 rounds up: 1 token in blocks of 4: 0 blocks, expected 1"


class BlockPool(BlockPool):
    def allocate(self, seq_id, num_tokens):
        num_new = num_tokens // self.block_size
        self._need(num_new)
        self.tables[seq_id] = [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_tokens

    def append(self, seq_id, num_tokens=1):
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        num_new = (num_held + num_tokens) // self.block_size - len(table)
        self._need(num_new)
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return []
