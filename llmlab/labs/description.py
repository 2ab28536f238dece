"""What a lab consists of: the words in which each labs/labNN_name/checks.py is written.

This file must not know notebooks, processes or any lab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a student wrote, or all variables of his notebook, by name.
Names = Mapping[str, Any]
# A picture as plain values (see pictures.py): it travels from the judging process and is kept in the record.
Picture = dict[str, Any]


class CheckFailed(Exception):
    """What a student wrote does something else than asked. The reason names the cause, the picture shows both."""

    def __init__(self, reason: str, picture: Picture | None = None) -> None:
        super().__init__(reason)
        self.picture = picture


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is right or not: all of its points or none."""

    name: str
    points: int
    # Called with what the student wrote and a seed. Raises: CheckFailed.
    run: Callable[[Names, int], object]
    # Hidden ones have harder inputs and another seed, and run when a lecturer grades.
    is_hidden: bool = False


def withheld(names: Names, seed: int) -> None:
    """In place of a hidden check, in an installation for students."""
    raise LookupError("this check runs where work is graded")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a student guesses before a cell shows it; the truth comes from his own run."""

    asks: str
    # The variable of the notebook that the cell fills, and what in it is the truth.
    variable: str
    truth: Callable[[Any], object]
    because: str
    # Of the truth, where it has one: see figures.py.
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Numbers of a student's own run that a reflection may name, beside the truths of predictions."""

    name: str
    # The variable of the notebook, and the number, or numbers, in it.
    variable: str
    of: Callable[[Any], object]
    # "ms", "%", "MB" ...: see figures.py.
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """`needs`: names that a student defines. `builds_on`: questions of the same class, which must be right first."""

    question_id: str
    title: str
    needs: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    hints: tuple[str, ...] = ()
    prediction: Prediction | None = None
    builds_on: tuple[str, ...] = ()
    # A sentence about a run in the notebook. Raises: CheckFailed.
    observe: Callable[[Names], str] | None = None
    # Its points are points of the score, not raw ones.
    is_reflection: bool = False


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab; its id is the name of its folder up to the first _."""

    title: str
    minutes: int
    engines: tuple[str, ...]
    questions: tuple[Question, ...]
    # Modules that have the answer: what a student wrote may not import them.
    forbidden: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    folder: Path = Path()

    @property
    def name(self) -> str:
        """`lab03_paged_kv`"""
        return self.folder.name

    @property
    def lab_id(self) -> str:
        """`lab03`"""
        return self.name.partition("_")[0]

    def question(self, question_id: str) -> Question:
        """Raises: KeyError when there is none of that id."""
        return {question.question_id: question for question in self.questions}[question_id]

    @property
    def predictions(self) -> dict[str, Prediction]:
        return {q.question_id: q.prediction for q in self.questions if q.prediction is not None}
