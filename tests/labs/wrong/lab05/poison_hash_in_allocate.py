"""Publishes at allocation, before the forward pass."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q5 nothing unwritten is found: 3 blocks are offered to the next request, but the forward pass that "
    "should have filled them was interrupted: a hash may appear only when the KV is there (commit)"
)


class PrefixBlockPool(EagerPool):
    pass
