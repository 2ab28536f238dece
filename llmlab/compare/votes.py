"""Blind mode: who stands behind A and B is drawn for each prompt; votes are counted when the names are known again.

Pure functions and records. This file must not know engines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

LETTERS = "ABCDEFGHIJKLMNOP"
TIE = "tie"
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Vote:
    """One choice of a person. `winner` is the index of a column; None: a tie."""

    prompt: int
    winner: int | None


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often one column won among the votes that were no tie."""

    name: str
    num_wins: int
    num_decided: int
    num_ties: int
    # of wins among the decided; None without any
    rate: float | None
    # its Wilson interval, 95 %
    low: float | None
    high: float | None


def orders(num_prompts: int, num_columns: int, seed: int) -> list[list[int]]:
    """For each prompt, which column stands in which place; the same seed, the same orders.

    >>> sorted(orders(1, 3, seed=0)[0])
    [0, 1, 2]
    """
    chance = random.Random(seed)
    return [chance.sample(range(num_columns), num_columns) for _ in range(num_prompts)]


def wilson(num_wins: int, num_votes: int, z: float = Z_95) -> tuple[float, float] | None:
    """Interval of a share that was seen num_wins times in num_votes; None without a vote.

    >>> [round(edge, 3) for edge in wilson(8, 10)]
    [0.49, 0.943]

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927), 209-212.
    """
    if not num_votes:
        return None
    share, spread = num_wins / num_votes, z * z / num_votes
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / num_votes + spread / (4 * num_votes))
    return max(0.0, centre - half), min(1.0, centre + half)


def win_rates(votes: Sequence[Vote], names: Sequence[str]) -> list[WinRate]:
    """One a column, from the last vote on each prompt."""
    last = {vote.prompt: vote.winner for vote in votes}
    decided = [winner for winner in last.values() if winner is not None]
    found = []
    for index, name in enumerate(names):
        num_wins = decided.count(index)
        low, high = wilson(num_wins, len(decided)) or (None, None)
        rate = num_wins / len(decided) if decided else None
        found.append(WinRate(name, num_wins, len(decided), len(last) - len(decided), rate, low, high))
    return found
