"""A freed prefix is forgotten at once: sharing only among running requests."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q3 counts: free blocks keep their hash until they are reused: cached AND free"


class PrefixBlockPool(PrefixBlockPool):
    def free(self, seq_id):
        table = list(self.tables[seq_id])
        super().free(seq_id)
        for block in table:
            if self.ref_counts[block] == 0 and block in self.hash_of:
                del self.block_with[self.hash_of.pop(block)]
