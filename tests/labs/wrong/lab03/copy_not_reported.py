"""A new block for who writes, and the engine is not told to copy the KV."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q4 copy on write: copies are [], expected one BlockCopy(6, 5): the engine must copy the KV"


class BlockPool(BlockPool):
    def append(self, seq_id, num_tokens=1):
        super().append(seq_id, num_tokens)
        return []
