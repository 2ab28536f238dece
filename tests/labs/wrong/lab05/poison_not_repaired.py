"""RepairedPool is EagerPool."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 nothing unwritten is found: RepairedPool: 3 blocks are offered to the next request, but the forward pass"


class RepairedPool(EagerPool):
    pass
