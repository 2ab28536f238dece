"""What Tab offers as the id of a lab or of a question. This file must not be slow, nor raise."""

from __future__ import annotations

from llmlab.errors import LlmlabError
from llmlab.labs.finding import all_labs


def labs() -> list[str]:
    return [lab.lab_id for lab in all_labs()]


def questions() -> list[str]:
    """Of the lab that is worked on; [] when none is."""
    from llmlab.labs.work import current_work

    try:
        return [question.question_id for question in current_work().lab.questions]
    except LlmlabError:
        return []
