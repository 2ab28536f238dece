"""The most recently freed goes first."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = (
    "Q4 least recently freed first: nothing had to be evicted yet: A hits {} blocks, B 0, expected 2 and "
    "2: empty blocks are used before cached ones, and the one freed last is reused last"
)


class PrefixBlockPool(PrefixBlockPool):
    def free(self, seq_id):
        del self.lengths[seq_id]
        for block in reversed(self.tables.pop(seq_id)):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self.free_blocks[block] = None
                self.free_blocks.move_to_end(block, last=False)
