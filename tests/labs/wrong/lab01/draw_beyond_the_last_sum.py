"""Compares u with sums that end below 1."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q5 inverse of the cumulative sum: {}let u count from 0 to the last sum"


class Sampler(Sampler):
    def draw(self, probs, u):
        return int(np.searchsorted(probs.cumsum(), u, side="right"))
