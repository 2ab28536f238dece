"""The last question of a lab: answers in words, each with a number of the student's own runs.

This file must not know any lab.
"""

from __future__ import annotations

import re
from functools import partial

from llmlab.labs.description import Check, CheckFailed, Names, Question
from llmlab.language import tr

LEAST_WORDS = 15
# Written without spaces: each sign counts as a word.
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def reflection_question(question_id: str, *asked: str) -> Question:
    """`asked`: a short name for each answer in the list `reflection`; 2 points of the score each."""
    checks = tuple(Check(name, 2, partial(answered, question_id, i)) for i, name in enumerate(asked))
    return Question(question_id, "reflect", ("reflection",), checks, is_reflection=True)


def answered(question_id: str, index: int, names: Names, seed: int) -> None:
    """Raises: NotImplementedError for an empty answer, CheckFailed for a short one or one without a number."""
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
    if not re.search(r"\d", text):
        raise CheckFailed(
            tr("answer {number} names no number: which figure of your own run says so?", number=index + 1)
        )
