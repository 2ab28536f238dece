"""Counts the new blocks only: a hit block that was free costs room, too."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q3 counts: allocate('b', 12, [{}]) needs 5 of 4 free blocks: it raised KeyError, not NoFreeBlocks"


class PrefixBlockPool(PrefixBlockPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new)
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.ref_counts[block] += 1
        self.tables[seq_id] = [*cached_blocks, *(self.take() for _ in range(num_new))]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens
