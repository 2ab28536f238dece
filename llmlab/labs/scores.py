"""What a lab's points come to: 6 for predictions made in time, 4 for reflection, 90 for code.

This file must not know where points come from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from llmlab.labs.description import Lab

# Of 100: the rest is for code.
PREDICTION_SCORE, REFLECTION_SCORE = 6, 4


class Score(NamedTuple):
    """Points of 100; where hidden checks have not run, `possible` is less."""

    predictions: float
    reflection: float
    raw: float
    raw_possible: float

    @property
    def total(self) -> float:
        return self.predictions + self.reflection + self.raw

    @property
    def possible(self) -> float:
        return PREDICTION_SCORE + REFLECTION_SCORE + self.raw_possible


def score_for(lab: Lab, predicted: Collection[str], earned: Mapping[str, int], *, with_hidden: bool) -> Score:
    """`predicted`: questions predicted in time, right or not; `earned`: points by question."""
    code = [question for question in lab.questions if not question.is_reflection]
    checks = [check for question in code for check in question.checks]
    weight = (100 - PREDICTION_SCORE - REFLECTION_SCORE) / sum(check.points for check in checks)
    return Score(
        PREDICTION_SCORE * len(predicted) / max(1, len(lab.predictions)),
        sum(earned[question.question_id] for question in lab.questions if question.is_reflection),
        weight * sum(earned[question.question_id] for question in code),
        weight * sum(check.points for check in checks if with_hidden or not check.is_hidden),
    )
