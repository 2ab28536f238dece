"""Takes fresh blocks first: may evict the very blocks that it hit."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = (
    "Q4 an evicted block is never hit: request {}: a hit block was evicted for the same request; touch "
    "the hits before taking fresh blocks"
)


class PrefixBlockPool(PrefixBlockPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new + sum(self.ref_counts[block] == 0 for block in cached_blocks))
        fresh = [self.take() for _ in range(num_new)]
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.ref_counts[block] += 1
        self.tables[seq_id] = [*cached_blocks, *fresh]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens
