"""min_p as a threshold on the probability itself, not relative to the largest one."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 60
SAYS = (
    "Q4 each filter alone: min_p (temperature 1.0, min_p 0.1): min-p is relative: keep p >= min_p x the largest p. "
    "You keep "
)


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature == 0:
            return super().probs(logits, params)
        p = super().probs(logits, SamplingParams(params.temperature))
        p[(p < params.min_p) & (p < p.max())] = 0
        with np.errstate(divide="ignore"):
            return super().probs(np.log(p / p.sum()), SamplingParams(1.0, params.top_k, params.top_p))
