"""A lab as the source of an nbgrader assignment: what `nbgrader generate_assignment` reads.

Points, public tests and hidden tests are those of the lab. This file must not know any lab.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from llmlab.labs.description import Check, Lab, Question
from llmlab.labs.graded_cells import cells_with_tests, function_name
from llmlab.labs.master import NotebookCell, Solution, ipynb, rewritten

# nbgrader puts one text in place of each solution, also where a statement would be wrong, as in a class: a comment.
CONFIGURATION = dedent('''\
    """The folder of an nbgrader course: `nbgrader generate_assignment LAB` here makes what students get."""

    c = get_config()  # noqa: F821
    c.CourseDirectory.course_id = "llmlab"
    c.ClearSolutions.code_stub = {"python": "# Your code:"}
    c.Execute.timeout = 120
    ''')


def nbgrader_source(lab: Lab, master: str) -> str:
    """As an .ipynb file."""
    cells = cells_with_tests(lab, rewritten(master, _marked), lambda question: list(_tests(lab, question)))
    return ipynb([_with_solution(f"solution-{i}", cell) for i, cell in enumerate(cells)])


def _marked(solution: Solution) -> str:
    """A solution in nbgrader's marks. What a student finds in its place is there all the time: the solution returns
    before it, or comes after it.
    """
    indent, line = solution.indent, f"{solution.indent}{solution.line}\n"
    begin, end = f"{indent}### BEGIN SOLUTION\n", f"{indent}### END SOLUTION\n"
    if solution.ends_a_call:
        return f"{begin}{solution.code}{indent}return\n{end}{line}"
    return f"{line}{begin}{solution.code}{end}"


def _with_solution(grade_id: str, cell: NotebookCell) -> NotebookCell:
    if "### BEGIN SOLUTION" not in cell["source"]:
        return cell
    return {**cell, "metadata": _metadata(grade_id, is_solution=True)}


def _tests(lab: Lab, question: Question) -> Iterator[NotebookCell]:
    for check in question.checks:
        grade_id = f"{question.question_id}-{function_name(check)}"
        metadata = _metadata(grade_id, is_solution=False, points=check.points)
        yield {"cell_type": "code", "source": _test(lab, question, check), "metadata": metadata}


def _test(lab: Lab, question: Question, check: Check) -> str:
    call = (
        "from llmlab.labs.exported import check\n"
        f"check({lab.lab_id!r}, {question.question_id!r}, {check.name!r}, globals())"
    )
    if not check.is_hidden:
        return call
    head = f"# {question.question_id}: {check.points} points are checked when your work is graded."
    return f"{head}\n### BEGIN HIDDEN TESTS\n{call}\n### END HIDDEN TESTS"


def _metadata(grade_id: str, *, is_solution: bool, **more: Any) -> dict[str, Any]:
    return {
        "nbgrader": {
            "schema_version": 3,
            "grade_id": grade_id,
            "grade": not is_solution,
            "solution": is_solution,
            "locked": not is_solution,
            "task": False,
            **more,
        }
    }
