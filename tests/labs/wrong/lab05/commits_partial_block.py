"""Hashes the last, partly filled block as well."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q4 least recently freed first: 3 blocks are hashed after 9 tokens in blocks of 4, expected 2: only "
    "full blocks have an identity"
)


class PrefixBlockPool(PrefixBlockPool):
    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        num_blocks = -(-num_computed_tokens // self.block_size)
        tokens = token_ids[:num_computed_tokens]
        for block, name in zip(self.tables[seq_id], self.hashes(tokens, num_blocks, salt), strict=False):
            if block not in self.hash_of and name not in self.block_with:
                self.hash_of[block], self.block_with[name] = name, block
