"""log2 in place of log."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q3 natural log of the softmax: {}that is the logarithm to base 2: take the natural one"


def logprob(logits, token_id):
    shifted = logits.astype(np.float64) - logits.max()
    return float((shifted[token_id] - np.log(np.exp(shifted).sum())) / np.log(2))
