"""Goes on after a miss: blocks that are no prefix."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = (
    "Q3 lookup: lookup of 9 tokens hits 4, expected 0: full blocks only, stop at the first miss, and "
    "leave at least one token"
)


class PrefixBlockPool(PrefixBlockPool):
    def lookup(self, token_ids, salt=""):
        size, found = self.block_size, []
        for i in range((len(token_ids) - 1) // size):
            for block, name in self.hash_of.items():
                parent = self.parents.get(name)
                if name == block_hash(parent, token_ids[i * size : (i + 1) * size], salt):
                    found.append(block)
        return found

    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        self.parents = getattr(self, "parents", {})
        chain = self.hashes(token_ids, num_computed_tokens // self.block_size, salt)
        self.parents |= dict(zip(chain, [None, *chain], strict=False))
        super().commit(seq_id, token_ids, num_computed_tokens, salt)
