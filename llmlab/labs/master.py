"""The master of a lab (jupytext py:percent with its solutions marked), and the student's notebook made from it.

A solution stands between `# BEGIN SOLUTION Q2: about 4 lines` and `# END SOLUTION`; a student finds one line there that
says Q2 is not written yet. After `# BEGIN SOLUTION -> LINE` he finds that line.
This file must not know any lab.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SOLUTION = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION (?:(?P<question>Q\d+): (?P<size>[^\n]+)|-> (?P<line>[^\n]+))\n"
    r"(?P<code>.*?)^ *# END SOLUTION\n",
    re.MULTILINE | re.DOTALL,
)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True, slots=True)
class Cell:
    is_code: bool
    text: str


def cells_of(master: str) -> list[Cell]:
    """The cells of a py:percent file, without its header; magics are no comments any more.

    >>> cells_of("# %% [markdown]\\n# Hello\\n\\n# %%\\n# %llm ps\\n")
    [Cell(is_code=False, text='Hello'), Cell(is_code=True, text='%llm ps')]
    """
    import jupytext

    return [Cell(cell.cell_type == "code", cell.source) for cell in jupytext.reads(master, "py:percent").cells]


def without_solutions(master: str) -> str:
    """One line in place of each solution.

    >>> without_solutions("# BEGIN SOLUTION Q2: about 1 line\\nx = 1\\n# END SOLUTION\\n")
    'raise NotImplementedError("Q2")  # about 1 line\\n'
    """
    return _SOLUTION.sub(lambda found: f"{found['indent']}{_left_for_students(found)}\n", master)


def with_solutions(master: str) -> str:
    """The solutions, without the marks around them."""
    return _SOLUTION.sub(r"\g<code>", master)


def notebook(master: str) -> str:
    """As an .ipynb file: the same bytes for the same master."""
    cells: list[dict[str, Any]] = []
    for i, cell in enumerate(cells_of(master)):
        base = {"id": f"cell-{i}", "metadata": {}, "source": cell.text.splitlines(keepends=True)}
        if cell.is_code:
            cells.append({"cell_type": "code", "execution_count": None, "outputs": [], **base})
        else:
            cells.append({"cell_type": "markdown", **base})
    whole = {"cells": cells, "metadata": {"kernelspec": _KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def definitions(master: str) -> str:
    """The code of the cells that define something, and no magics: what starter.py and reference.py hold."""
    cells = [cell.text for cell in cells_of(master) if cell.is_code]
    kept = [text for text in cells if re.search(r"^(class|def|from|reflection)\b", text, re.MULTILINE)]
    return "\n\n\n".join(kept) + "\n"


def _left_for_students(solution: re.Match[str]) -> str:
    if solution["line"]:
        return solution["line"]
    return f'raise NotImplementedError("{solution["question"]}")  # {solution["size"]}'
