"""No token is left to compute."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = (
    "Q3 lookup: lookup of 8 tokens hits 8, expected 4: full blocks only, stop at the first miss, and "
    "leave at least one token to compute (its logits are needed)"
)


class PrefixBlockPool(PrefixBlockPool):
    def lookup(self, token_ids, salt=""):
        return super().lookup([*token_ids, 0], salt)
