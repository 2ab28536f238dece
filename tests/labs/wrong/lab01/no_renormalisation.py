"""Cuts, and returns what is left without dividing by its sum."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 60
SAYS = (
    "Q4 each filter alone: top_k (temperature 1.0, top_k 5): the probabilities sum to {}, expected 1: normalise what "
    "is left"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        whole = super().probs(logits, SamplingParams(params.temperature))
        return np.where(super().probs(logits, params) > 0, whole, 0)
