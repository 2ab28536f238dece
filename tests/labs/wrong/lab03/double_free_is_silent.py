"""free of an unknown sequence does nothing."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q3 free: free('s') twice must raise KeyError: a silent double free corrupts another sequence"


class BlockPool(BlockPool):
    def free(self, seq_id):
        self.lengths.pop(seq_id, None)
        for block in self.tables.pop(seq_id, []):
            self._drop(block)
