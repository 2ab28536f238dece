"""num_tokens // block_size + 1."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = "Q2 rounds up: 4 tokens in blocks of 4: 2 blocks, expected 1"


class BlockPool(BlockPool):
    def allocate(self, seq_id, num_tokens):
        num_new = num_tokens // self.block_size + 1
        self._need(num_new)
        self.tables[seq_id] = [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_tokens
