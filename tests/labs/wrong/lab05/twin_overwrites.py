"""A second copy of the same prefix takes over the entry; the end of one breaks the other."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q4 an evicted block is never hit: request {}: two blocks with one hash? The second one stays without"


class PrefixBlockPool(PrefixBlockPool):
    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        num_full = num_computed_tokens // self.block_size
        for block, name in zip(self.tables[seq_id], self.hashes(token_ids, num_full, salt), strict=False):
            self.hash_of[block], self.block_with[name] = name, block
