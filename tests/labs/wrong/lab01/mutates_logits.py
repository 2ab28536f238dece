"""Writes -inf into the array of the engine."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 80
SAYS = "Q4 no side effects: probs() changed the logits it was given"


class Sampler(Sampler):
    def probs(self, logits, params):
        probs = super().probs(logits, params)
        logits[probs == 0] = -np.inf
        return probs
