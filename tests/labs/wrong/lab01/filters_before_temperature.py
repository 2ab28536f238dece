"""llama.cpp's usual chain: top-k, top-p, min-p first, temperature last."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 70
SAYS = (
    "Q4 filters together, in order: combined (temperature 0.5, top_k 40, top_p 0.9): you cut on the distribution "
    "BEFORE temperature"
)


class Sampler(Sampler):
    def probs(self, logits, params):
        if params.temperature == 0:
            return super().probs(logits, params)
        cut = super().probs(logits, SamplingParams(top_k=params.top_k, top_p=params.top_p))
        cut[cut < params.min_p * cut.max()] = 0
        powers = (cut / cut.max()) ** (1 / params.temperature)
        return powers / powers.sum()
