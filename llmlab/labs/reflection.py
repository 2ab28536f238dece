"""The last question of a lab: answers in words, each with a figure of the student's own runs.

Where no figures of a run are known, any number counts, and to_be_read() says so. This file must not know any lab.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from llmlab.labs.description import Check, CheckFailed, Names, Question
from llmlab.labs.figures import Own, names_one, numbers_in
from llmlab.labs.results import Results
from llmlab.labs.sentences import say
from llmlab.language import tr

LEAST_WORDS = 15
# Among what a student wrote, under a name that nobody can define: the figures of his runs.
FIGURES = "figures of his runs"
# Written without spaces: each sign counts as a word.
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_QUESTION = re.compile(r"Q\d+")


def reflection_question(question_id: str, *asked: str) -> Question:
    """`asked`: a short name for each answer in the list `reflection`; 2 points of the score each."""
    checks = tuple(Check(name, 2, partial(answered, question_id, i)) for i, name in enumerate(asked))
    return Question(question_id, "reflect", ("reflection",), checks, is_reflection=True)


def answered(question_id: str, index: int, names: Names, seed: int) -> None:
    """Raises: NotImplementedError for an empty answer, CheckFailed for a short one or one without a figure."""
    answers = names["reflection"]
    text = str(answers[index]) if isinstance(answers, list | tuple) and len(answers) > index else ""
    num_words = sum(max(1, len(_CHINESE.findall(word))) for word in text.split())
    if not num_words:
        raise NotImplementedError(question_id)
    if num_words < LEAST_WORDS:
        raise CheckFailed(
            tr("answer {number} has {words} words; write at least {least}", number=index + 1, words=num_words,
               least=LEAST_WORDS)
        )  # fmt: skip
    numbers = [number.text for number in numbers_in(text)]
    if not numbers:
        raise CheckFailed(
            tr("answer {number} names no number: which figure of your own run says so?", number=index + 1)
        )
    figures: Sequence[Own] = names.get(FIGURES, ())
    if figures and not names_one(text, figures):
        raise CheckFailed(
            tr(
                "answer {number} names {numbers}, and no figure of your own runs. One of these would do, as your cells "
                "show it: {figures}",
                number=index + 1,
                numbers=", ".join(dict.fromkeys(numbers)),
                figures="; ".join(dict.fromkeys(_shown(figure.source) for figure in figures)),
            )
        )


def to_be_read(results: Results, questions: Sequence[Question], figures: Sequence[Own]) -> list[str]:
    """What is to be said of answers that count, though no figures of a run were there to hold them against."""
    passed = [q for q in questions if q.is_reflection and any(check.passed for check in results.of(q.question_id))]
    return [] if figures else [say("to_be_read", question=question.question_id) for question in passed]


def _shown(source: str) -> str:
    """A figure is named, not told."""
    return tr("what your run says to {question}", question=source) if _QUESTION.fullmatch(source) else tr(source)
