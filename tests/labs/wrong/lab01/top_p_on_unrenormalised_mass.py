"""top-p counts mass of the full distribution, not of what min-p and top-k left."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = (
    "Q4 filters together, in order: combined (temperature {}): top-p must count the mass of what min-p and top-k "
    "left, renormalised. You keep "
)


class Sampler(Sampler):
    def probs(self, logits, params):
        whole = super().probs(logits, SamplingParams(params.temperature))
        probs = super().probs(logits, SamplingParams(params.temperature, params.top_k, 1.0, params.min_p))
        if params.top_p < 1:
            order = np.argsort(-whole, kind="stable")
            probs[order[whole[order].cumsum() - whole[order] >= params.top_p]] = 0
        return probs / probs.sum()
