"""Questions with one right answer: how many of them an engine gets right, and how sure one can be of that.

This file must not know any engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llmlab.engines.handle import EngineHandle
from llmlab.errors import RequestError
from llmlab.shipped import shipped

MAX_TOKENS = 16
QUESTIONS = "quality/exact_answers.jsonl"


class Question(msgspec.Struct, frozen=True):
    """`answers`: any of them is right."""

    question: str
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    question: Question
    text: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class ExactAnswers:
    """What came out. `share` of `len(answered)` were right."""

    engine: str
    answered: tuple[Answered, ...]

    @property
    def num_right(self) -> int:
        return sum(each.is_right for each in self.answered)

    @property
    def share(self) -> float:
        return self.num_right / len(self.answered)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of many such questions lies, with 95 %: the Wilson interval. Without one, 0 to 1."""
        from llmlab.compare.votes import wilson  # the package brings all of compare() along

        return wilson(self.num_right, len(self.answered)) or (0.0, 1.0)

    def __repr__(self) -> str:
        low, high = self.interval
        right = f"{self.num_right} of {len(self.answered)}"
        return f"ExactAnswers({self.engine}: {right}, 95 % interval {low:.0%} to {high:.0%})"


def exact_answers(handle: EngineHandle, questions: Iterable[Question] | str | Path | None = None) -> ExactAnswers:
    """Ask each question once, greedily. An answer is right when it says one of `answers` in its first line.

    `questions`: Questions, or a JSON Lines file of {"question", "answers", "kind"} (None: 24 that come with llmlab).

    Raises: RequestError for a file with a broken line, or no questions.
    """
    asked = (
        read_questions(Path(questions or shipped(QUESTIONS)))
        if isinstance(questions, str | Path | None)
        else tuple(questions)
    )
    if not asked:
        raise RequestError("There are no questions: give at least one.")
    results = handle.batch([question.question for question in asked], max_tokens=MAX_TOKENS, temperature=0.0).wait()
    answered = (
        Answered(q, result.text, is_right(result.text, q.answers)) for q, result in zip(asked, results, strict=True)
    )
    return ExactAnswers(handle.name, tuple(answered))


def is_right(text: str, answers: Iterable[str]) -> bool:
    """Whether the first line says one of the answers, as words of their own; case and marks do not matter.

    >>> is_right("Paris.", ["Paris"]), is_right("2 + 3 = **5**", ["5", "five"]), is_right("50", ["5"])
    (True, True, False)
    """
    said = f" {_plain(text.strip().partition(chr(10))[0])} "
    return any(f" {_plain(answer)} " in said for answer in answers)


def read_questions(path: Path) -> tuple[Question, ...]:
    """Raises: RequestError with the number of a broken line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Question))
            except msgspec.DecodeError as error:
                raise RequestError(
                    f'{path}, line {number}: {error}; needed: {{"question": ..., "answers": [...]}}.'
                ) from None
    return tuple(found)


def _plain(text: str) -> str:
    """Words alone, in lower case.

    >>> _plain("The Sun, of course!")
    'the sun of course'
    """
    return " ".join(re.findall(r"\w+", text.lower()))
