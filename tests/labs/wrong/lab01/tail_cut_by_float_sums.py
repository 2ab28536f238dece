"""Applies top-p at 1, too."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q4 each filter alone: all filters are off (top_p 1), and you keep {}skip what is off, sums of floats cut the tail"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        probs = super().probs(logits, params)
        if params.top_p == 1:
            order = np.argsort(-probs, kind="stable")
            probs[order[probs[order].cumsum() - probs[order] >= params.top_p]] = 0
        return probs / probs.sum()
