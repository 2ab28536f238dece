"""Blocks freed in table order: the beginning of the prefix goes first."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = (
    "Q4 least recently freed first: one block had to go: A keeps 0 blocks, expected 1: the end of the "
    "chain goes first, a prefix without its beginning is useless"
)


class PrefixBlockPool(PrefixBlockPool):
    def free(self, seq_id):
        self.tables[seq_id].reverse()
        super().free(seq_id)
