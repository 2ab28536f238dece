"""A lab as the source of an otter-grader assignment: what `otter assign` reads.

Points, public tests and hidden tests are those of the lab. This file must not know any lab.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent

from llmlab.labs.description import Check, Lab, Question
from llmlab.labs.graded_cells import cells_with_tests, function_name
from llmlab.labs.master import NotebookCell, Solution, ipynb, rewritten


def otter_source(lab: Lab, master: str) -> str:
    """As an .ipynb file; the hidden checks lie beside it, in hidden_file(lab)."""
    cells = cells_with_tests(lab, rewritten(master, _marked), lambda question: list(_tests(lab, question)))
    return ipynb([_raw(_configuration(lab)), *cells])


def hidden_file(lab: Lab) -> str:
    return f"{lab.name}.checks.zip"


def _configuration(lab: Lab) -> str:
    # strip_solutions_from_all_cells: one class has the solutions of several questions
    return dedent(f"""\
        # ASSIGNMENT CONFIG
        strip_solutions_from_all_cells: true
        export_cell:
            pdf: false
        generate:
            show_stdout: true
        requirements:
            - llmlab-kit[lab,views]
        autograder_files:
            - {hidden_file(lab)}
        tests:
            files: true
            ok_format: false""")


def _marked(solution: Solution) -> str:
    """A solution in otter's marks, with what a student finds in its place."""
    indent = solution.indent
    return (
        f"{indent}# BEGIN SOLUTION NO PROMPT\n{solution.code}{indent}# END SOLUTION\n"
        f'{indent}""" # BEGIN PROMPT\n{indent}{solution.line}\n{indent}"""; # END PROMPT\n'
    )


def _tests(lab: Lab, question: Question) -> Iterator[NotebookCell]:
    yield _raw(f"# BEGIN QUESTION\nname: {question.question_id.lower()}")
    yield _raw("# BEGIN TESTS")
    for check in question.checks:
        yield {"cell_type": "code", "source": _test(lab, question, check)}
    yield _raw("# END TESTS")
    yield _raw("# END QUESTION")


def _test(lab: Lab, question: Question, check: Check) -> str:
    hidden_in = f", hidden_in={hidden_file(lab)!r}" if check.is_hidden else ""
    call = f"check({lab.lab_id!r}, {question.question_id!r}, {check.name!r}, env{hidden_in})"
    return dedent(f'''\
        """ # BEGIN TEST CONFIG
        points: {check.points}
        hidden: {str(check.is_hidden).lower()}
        """ # END TEST CONFIG
        def test_{function_name(check)}(env):
            from llmlab.labs.exported import check
            {call}''')


def _raw(text: str) -> NotebookCell:
    return {"cell_type": "raw", "source": text}
