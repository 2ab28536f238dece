"""exp() without subtracting the maximum; logprob as log(softmax)."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 65
SAYS = "Q3 natural log of the softmax: logprob is {}use logit - logsumexp"


def logprob(logits, token_id):
    with np.errstate(all="ignore"):
        weights = np.exp(logits)
        return float(np.log(weights[token_id] / weights.sum()))


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature == 0:
            return super().probs(logits, params)
        with np.errstate(all="ignore"):
            weights = np.exp(logits / params.temperature)
            probs = weights / weights.sum()
        return probs if np.isnan(probs).any() else super().probs(logits, params)
