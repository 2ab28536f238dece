"""No case for temperature 0."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q4 temperature: temperature (temperature 0.0): 200 of the probabilities are nan or inf: temperature 0 means "
    "greedy, do not"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature == 0:
            with np.errstate(all="ignore"):
                weights = np.exp(logits / np.float32(0) - np.inf)
                return weights / weights.sum()
        return super().probs(logits, params)
