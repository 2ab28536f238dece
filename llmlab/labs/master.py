"""The master of a lab (jupytext py:percent with its solutions marked), and the student's notebook made from it.

A solution stands between `# BEGIN SOLUTION Q2: about 4 lines` and `# END SOLUTION`; a student finds one line there that
says Q2 is not written yet. After `# BEGIN SOLUTION -> LINE` he finds that line.
This file must not know any lab.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.language import tr

_SOLUTION = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION (?:(?P<question>Q\d+): (?P<size>[^\n]+)|-> (?P<line>[^\n]+))\n"
    r"(?P<code>.*?)^ *# END SOLUTION\n",
    re.MULTILINE | re.DOTALL,
)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


# A cell of an .ipynb file: cell_type, source, and what else it has.
NotebookCell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    is_code: bool
    text: str


@dataclass(frozen=True, slots=True)
class Solution:
    """`line`: what a student finds in its place; `ends_a_call`: it raises, so that nothing may run into it."""

    indent: str
    line: str
    code: str
    ends_a_call: bool


def cells_of(master: str) -> list[Cell]:
    """The cells of a py:percent file, without its header; magics are no comments any more.

    >>> cells_of("# %% [markdown]\\n# Hello\\n\\n# %%\\n# %llm ps\\n")
    [Cell(is_code=False, text='Hello'), Cell(is_code=True, text='%llm ps')]
    """
    import jupytext

    return [Cell(cell.cell_type == "code", cell.source) for cell in jupytext.reads(master, "py:percent").cells]


def rewritten(master: str, write: Callable[[Solution], str]) -> str:
    """What `write` returns, whole lines, in place of each solution and its marks."""
    return _SOLUTION.sub(lambda found: write(_solution(found)), master)


def without_solutions(master: str) -> str:
    """One line in place of each solution.

    >>> without_solutions("# BEGIN SOLUTION Q2: about 1 line\\nx = 1\\n# END SOLUTION\\n")
    'raise NotImplementedError("Q2")  # about 1 line\\n'
    """
    return rewritten(master, lambda solution: f"{solution.indent}{solution.line}\n")


def with_solutions(master: str) -> str:
    """The solutions, without the marks around them."""
    return rewritten(master, lambda solution: solution.code)


def notebook(master: str) -> str:
    """As an .ipynb file, its text in the student's language: the same bytes for the same master."""
    return ipynb([notebook_cell(cell) for cell in cells_of(master)])


def notebook_cell(cell: Cell) -> NotebookCell:
    """A text cell comes in the student's language."""
    return {"cell_type": "code", "source": cell.text} if cell.is_code else {
        "cell_type": "markdown", "source": tr(cell.text)
    }  # fmt: skip


def ipynb(cells: Sequence[NotebookCell]) -> str:
    """These cells as an .ipynb file."""
    whole = {"cells": [_whole(f"cell-{i}", cell) for i, cell in enumerate(cells)],
             "metadata": {"kernelspec": _KERNEL}, "nbformat": 4, "nbformat_minor": 5}  # fmt: skip
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def definitions(master: str) -> str:
    """The code of the cells that define something, and no magics: what starter.py and reference.py hold."""
    cells = [cell.text for cell in cells_of(master) if cell.is_code]
    kept = [text for text in cells if re.search(r"^(class|def|from|reflection)\b", text, re.MULTILINE)]
    return "\n\n\n".join(kept) + "\n"


def _whole(cell_id: str, cell: NotebookCell) -> NotebookCell:
    """With its id and all that the format asks of it."""
    source = cell["source"].splitlines(keepends=True)
    first = {"cell_type": cell["cell_type"]} | (
        {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
    )
    return {**first, "id": cell_id, "metadata": cell.get("metadata", {}), "source": source}


def _solution(found: re.Match[str]) -> Solution:
    line = found["line"] or f'raise NotImplementedError("{found["question"]}")  # {found["size"]}'
    return Solution(found["indent"], line, found["code"], ends_a_call=found["line"] is None)
