"""Draws at random, from a generator of its own: no seed repeats an answer."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q5 inverse of the cumulative sum: draw(p, u="


class Sampler(Sampler):
    dice = np.random.default_rng(5)

    def draw(self, probs, u):
        return int(self.dice.choice(len(probs), p=probs.astype(np.float64) / probs.sum(dtype=np.float64)))
