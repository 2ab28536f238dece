"""What the process that checks a question is asked for. This file must not know how it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmlab.labs.description import Check, Question
from llmlab.labs.figures import Own
from llmlab.labs.sentences import say
from llmlab.labs.submission import Submission

MEMORY_BYTES = 1 << 30  # beyond what the process needs itself
MEMORY_TEXT = "1 GiB"


@dataclass(frozen=True, slots=True)
class Order:
    folder: Path
    question_id: str
    submission: Submission
    seed: int
    with_hidden: bool
    # Of the student's runs, for his reflection.
    figures: tuple[Own, ...] = ()


def selected(question: Question, with_hidden: bool) -> list[Check]:
    return [check for check in question.checks if with_hidden or not check.is_hidden]


def missing_text(question_id: str, missing: list[str]) -> str:
    """Names that a question needs are not defined."""
    them = "it" if len(missing) == 1 else "them"
    return say("missing", question=question_id, names=", ".join(missing), them=them)
