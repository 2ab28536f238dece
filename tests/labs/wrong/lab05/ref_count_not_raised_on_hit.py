"""A hit block is used, not counted."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q3 counts: after a hit: block 0 has ref_count 1, but 2 block tables hold it (['a', 'b'])"


class PrefixBlockPool(PrefixBlockPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new + sum(self.ref_counts[block] == 0 for block in cached_blocks))
        for block in cached_blocks:
            if self.free_blocks.pop(block, block) is None:
                self.ref_counts[block] = 1
        self.tables[seq_id] = [*cached_blocks, *(self.take() for _ in range(num_new))]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens
