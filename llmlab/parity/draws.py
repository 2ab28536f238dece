"""Do drawn tokens follow a distribution? Pearson's chi-square of the counts.

Pure functions on arrays. This file must not know any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from llmlab.engines.base import Floats

# A token counts for itself when so many draws of it are expected; the others are one bin together.
LEAST_EXPECTED = 5


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """Of draws against probabilities. When they fit, `value` is about `dof`, give or take sqrt(2 dof)."""

    value: float
    # Degrees of freedom: bins less one.
    dof: int
    # Draws of tokens whose probability is 0; each is in the bin of the rare tokens, where there is one.
    num_outside: int

    @property
    def limit(self) -> float:
        """What 95 of 100 right samplers stay below.

        >>> round(ChiSquare(0.0, 73, 0).limit, 1)
        93.9

        Source: Wilson and Hilferty 1931, The distribution of chi-square, PNAS 17.
        """
        share = 2 / (9 * self.dof)
        return float(self.dof * (1 - share + 1.645 * sqrt(share)) ** 3)

    def __str__(self) -> str:
        outside = f", {self.num_outside} draws outside" if self.num_outside else ""
        return f"chi-square {self.value:.0f} with {self.dof} degrees of freedom (95 %: {self.limit:.0f}){outside}"


def chi_square(token_ids: Sequence[int], probs: Floats) -> ChiSquare:
    """Of these draws, if probs, [num_vocab], is what they were drawn from.

    chi-square = sum over bins of (observed - expected)^2 / expected. A bin is a token that is expected at least 5
    times; all others are one bin, if they are expected 5 times together.

    >>> chi_square([0] * 40 + [1] * 60, np.array([0.5, 0.5]))
    ChiSquare(value=4.0, dof=1, num_outside=0)

    Raises: ValueError when fewer than two bins are left: too few draws.
    """
    observed = np.bincount(np.asarray(token_ids, np.int64), minlength=len(probs)).astype(np.float64)
    expected = np.asarray(probs, np.float64) * len(token_ids)
    often = expected >= LEAST_EXPECTED
    bins = [(observed[often], expected[often])]
    if (rest := float(expected[~often].sum())) >= LEAST_EXPECTED:
        bins.append((np.array([observed[~often].sum()]), np.array([rest])))
    seen, wanted = (np.concatenate(side) for side in zip(*bins, strict=True))
    if len(wanted) < 2:
        raise ValueError(f"{len(token_ids)} draws are too few: no two bins are expected {LEAST_EXPECTED} times")
    value = float(((seen - wanted) ** 2 / wanted).sum())
    return ChiSquare(value, len(wanted) - 1, int(observed[expected == 0].sum()))
