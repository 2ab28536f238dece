"""Perplexity: how surprised a model is by a text. On every engine that gives logits, over the same windows.

This file must not know any engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab.engines.handle import EngineHandle
from llmlab.errors import RequestError
from llmlab.shipped import shipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A window of 256 rows of 49,152 float32 travels as 50 MB.
WINDOW = 256
TEXT = "texts/harbour.txt"


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp(mean negative log likelihood of a token), in nats. float(p) is its value."""

    engine: str
    value: float
    # Of the mean log likelihood, as if tokens were independent: two quants closer than this are not told apart.
    standard_error_nats: float
    num_tokens: int
    # that were scored
    num_scored: int
    window: int

    @property
    def nats_per_token(self) -> float:
        return math.log(self.value)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        low, high = (self.value * math.exp(sign * self.standard_error_nats) for sign in (-1, 1))
        return (
            f"Perplexity({self.engine}: {self.value:.3f}, {low:.2f} to {high:.2f} for another text like it; "
            f"{self.num_scored} tokens, windows of {self.window})"
        )


def perplexity(handle: EngineHandle, text: str | None = None, *, window: int = WINDOW) -> Perplexity:
    """The perplexity of a text (None: datasets/texts/harbour.txt, which was written for llmlab).

    The text is cut into windows of `window` tokens that overlap by half; in each, the second half is scored, in the
    first window all but its first token. So every token but the first is scored once, and most of them with half a
    window before them. Engines that get the same tokens get the same windows, so their values compare.

    >>> llmlab.perplexity(eng)                    # doctest: +SKIP
    Perplexity(smollm2-135m: 20.113, ...)

    Raises: RequestError for a text of fewer than two tokens, a window under 2 or over what the engine takes, and while
    it has requests of its own; EngineError for an engine without logits.

    Source: the sliding window of "Perplexity of fixed-length models", Hugging Face transformers documentation.
    """
    content = shipped(TEXT).read_text(encoding="utf-8") if text is None else text
    token_ids = handle.tokenize(content)
    if len(token_ids) < 2:
        raise RequestError(
            f"The text has {len(token_ids)} tokens; perplexity needs at least 2, one to foretell the other."
        )
    if window < 2:
        raise RequestError(f"window is {window}; it must be 2 or more tokens.")
    losses = [
        loss
        for start, end, first in windows(len(token_ids), window)
        for loss in _losses(handle, token_ids[start:end], first)
    ]
    mean = math.fsum(losses) / len(losses)
    variance = math.fsum((loss - mean) ** 2 for loss in losses) / max(1, len(losses) - 1)
    return Perplexity(
        engine=handle.name,
        value=math.exp(mean),
        standard_error_nats=math.sqrt(variance / len(losses)),
        num_tokens=len(token_ids),
        num_scored=len(losses),
        window=min(window, len(token_ids)),
    )


def windows(num_tokens: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, first): tokens start..end-1 are read, and those from index `first` of the window on are scored.

    >>> list(windows(10, 4))
    [(0, 4, 1), (2, 6, 2), (4, 8, 2), (6, 10, 2)]
    >>> list(windows(9, 4))
    [(0, 4, 1), (2, 6, 2), (4, 8, 2), (6, 9, 2)]
    """
    scored = 1
    start = 0
    while scored < num_tokens:
        end = min(start + window, num_tokens)
        yield start, end, scored - start
        scored, start = end, start + max(1, window // 2)


def _losses(handle: EngineHandle, token_ids: Sequence[int], first: int) -> list[float]:
    """Negative log likelihood of the tokens from index `first` on, in nats."""
    rows = handle.logits(token_ids)[first - 1 : len(token_ids) - 1]
    return negative_log_likelihood(rows, token_ids[first:]).tolist()


def negative_log_likelihood(rows: NDArray[np.float32], token_ids: Sequence[int]) -> NDArray[np.float64]:
    """rows [num_tokens, num_vocab], logits up to a constant a row, each of the token of the same place; in nats.

    >>> import numpy as np
    >>> negative_log_likelihood(np.zeros((1, 4), np.float32), [2]).round(4)   # one of four
    array([1.3863])
    """
    import numpy as np

    from llmlab.parity.distances import log_softmax

    return -log_softmax(rows)[np.arange(len(token_ids)), token_ids]
