"""Hashes all blocks of the prompt at once, computed or not."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q5 only computed tokens: {} tokens are computed: lookup finds"


class PrefixBlockPool(PrefixBlockPool):
    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        super().commit(seq_id, token_ids, len(token_ids), salt)
