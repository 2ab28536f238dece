"""First in, first out: a prefix that was used for long goes first."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q4 least recently freed first: A was {} before B and freed after it: A keeps"


class PrefixBlockPool(PrefixBlockPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new + sum(self.ref_counts[block] == 0 for block in cached_blocks))
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.ref_counts[block] += 1
        self.tables[seq_id] = [*cached_blocks, *(self.take() for _ in range(num_new))]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens
        self.clock = getattr(self, "clock", 0) + 1
        self.taken = getattr(self, "taken", {})
        for block in self.tables[seq_id]:
            self.taken[block] = self.clock

    def free(self, seq_id):
        super().free(seq_id)
        order = sorted(self.free_blocks, key=lambda block: (block in self.hash_of, self.taken.get(block, 0)))
        self.free_blocks = OrderedDict.fromkeys(order)
