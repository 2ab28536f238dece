"""The cells of a lab with the tests of another grader in their places, and without runs of engines while it grades.

This file must not know any grader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llmlab.labs.description import Check, Lab, Question
from llmlab.labs.master import NotebookCell, cells_of, notebook_cell
from llmlab.labs.needed import as_python, needed, statements_of

# nbclient, which otter and nbgrader run notebooks with, passes over cells with this tag; JupyterLab does not.
SKIPPED = "skip-execution"


def cells_with_tests(
    lab: Lab, master: str, tests_of: Callable[[Question], Sequence[NotebookCell]]
) -> list[NotebookCell]:
    """The tests of a question stand behind its last `%llm lab check`; what no check needs is skipped."""
    cells = cells_of(master)
    code = [as_python(cell.text) if cell.is_code else "" for cell in cells]
    names = {name for question in lab.questions for name in question.needs}
    graded = {statement.cell for statement in needed(statements_of(code), names)}
    behind = {_place(lab, question, [cell.text for cell in cells]): question for question in lab.questions}
    made = []
    for i, cell in enumerate(cells):
        tags = [SKIPPED] if cell.is_code and i not in graded else []
        made.append({**notebook_cell(cell), "metadata": {"tags": tags} if tags else {}})
        if i in behind and behind[i].checks:
            made += tests_of(behind[i])
    return made


def function_name(check: Check) -> str:
    """`time_does_not_grow_with_the_pool`"""
    return re.sub(r"\W+", "_", check.name.lower()).strip("_")


def _place(lab: Lab, question: Question, texts: Sequence[str]) -> int:
    call = re.compile(rf"^%llm lab check {question.question_id}\b", re.MULTILINE)
    places = [i for i, text in enumerate(texts) if call.search(text)]
    if not places:
        raise ValueError(f"{lab.name}/lab.py has no `%llm lab check {question.question_id}`")
    return places[-1]
