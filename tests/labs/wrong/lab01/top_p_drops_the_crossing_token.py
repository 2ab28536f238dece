"""Keeps tokens while the cumulative sum INCLUDING them is <= top_p."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 60
SAYS = (
    "Q4 each filter alone: top_p (temperature 1.0, top_p 0.8): top-p drops the token that crosses the line: keep a "
    "token while the mass strictly in front of it is < top_p"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        probs = super().probs(logits, SamplingParams(params.temperature, params.top_k, 1.0, params.min_p))
        if params.top_p < 1 and params.temperature:
            order = np.argsort(-probs, kind="stable")
            probs[order[probs[order].cumsum() > params.top_p]] = 0
        with np.errstate(invalid="ignore"):
            return probs / probs.sum()
