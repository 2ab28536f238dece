"""top-p first, top-k on what it left."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = "Q4 filters together, in order: combined (temperature {}"


class Sampler(Sampler):
    def probs(self, logits, params):
        probs = super().probs(logits, SamplingParams(params.temperature, 0, params.top_p, params.min_p))
        if params.top_k:
            probs[np.argsort(-probs, kind="stable")[params.top_k :]] = 0
        return probs / probs.sum()
