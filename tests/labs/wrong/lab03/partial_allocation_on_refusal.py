"""Takes blocks one by one and raises half-way."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = "Q2 a refusal changes nothing: allocate('b', 8) was refused, yet the pool changed: count first, take afterwards"


class BlockPool(BlockPool):
    def allocate(self, seq_id, num_tokens):
        self.tables[seq_id], self.lengths[seq_id] = [], num_tokens
        for _ in range(-(-num_tokens // self.block_size)):
            self._need(1)
            self.tables[seq_id].append(self._take())
