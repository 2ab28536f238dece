"""Log probabilities of tokens, from the row of logits that they were drawn from.

This file must not know any engine.
"""

from __future__ import annotations

import numpy as np

from llmlab.engines.base import Floats


def logprobs(logits: Floats, token_id: int, num_top: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural log of the probability of a token, and the num_top most likely (token_id, logprob), best first.

    Before temperature and filters, as vLLM reports them. logits: [vocab_size].
    """
    high = logits.max()
    normaliser = float(high) + float(np.log(np.exp(logits - high).sum(dtype=np.float64)))
    top: list[tuple[int, float]] = []
    if num_top:
        best = np.argpartition(logits, -num_top)[-num_top:]
        best = best[np.lexsort((best, -logits[best]))]
        top = [(int(i), float(logits[i]) - normaliser) for i in best]
    return float(logits[token_id]) - normaliser, top
