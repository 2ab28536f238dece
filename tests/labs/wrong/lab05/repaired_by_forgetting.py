"""RepairedPool publishes nothing at all, so that nothing is ever found."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 nothing unwritten is found: RepairedPool finds 0 blocks of a prompt that was computed, expected 3"


class RepairedPool(PrefixBlockPool):
    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        pass
