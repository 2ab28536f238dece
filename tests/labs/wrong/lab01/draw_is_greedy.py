"""Ignores u."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q5 inverse of the cumulative sum: draw(p, u=0.0) gave token 3 (p=0.5), expected 1: the first token whose"


class Sampler(Sampler):
    def draw(self, probs, u):
        return int(probs.argmax())
