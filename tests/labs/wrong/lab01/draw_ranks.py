"""Sorts first, and returns the rank in the sorted order."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q5 inverse of the cumulative sum: draw(p, u=0.0) gave token 0 (p=0.0), expected 1"


class Sampler(Sampler):
    def draw(self, probs, u):
        return int(np.searchsorted(np.sort(probs)[::-1].cumsum(dtype=np.float64) / probs.sum(), u, side="right"))
