"""Multiplies the logits with the temperature."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 60
SAYS = "Q4 temperature: temperature (temperature 0.5): divide the logits by the temperature, do not multiply"


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature:
            logits = logits * params.temperature**2
        return super().probs(logits, params)
