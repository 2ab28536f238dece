"""The temperature is first, but min-p comes after top-k and top-p."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = (
    "Q4 filters together, in order: combined (temperature {}): top-p must count the mass of what min-p and top-k left"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        probs = super().probs(logits, SamplingParams(params.temperature, params.top_k, params.top_p))
        probs[probs < params.min_p * probs.max()] = 0
        return probs / probs.sum()
