"""First index whose cumulative sum is >= u: u = 0 gives token 0, although its probability is 0."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q5 inverse of the cumulative sum: draw(p, u=0.0) gave token 0 (p=0.0), expected 1: the first token whose"


class Sampler(Sampler):
    def draw(self, probs, u):
        sums = probs.cumsum(dtype=np.float64)
        return int(np.searchsorted(sums, u * sums[-1]))
