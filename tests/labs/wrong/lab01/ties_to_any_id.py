"""Among equal logits the higher id stays."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q4 each filter alone: equal logits (temperature 1.0, top_k 7): among equal logits the lower id stays: you keep ["
)


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature == 0:
            return super().probs(logits, params)
        return super().probs(logits[::-1], params)[::-1]
