"""A notebook and its .py twin say the same, and what git holds of it has no outputs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
TWINS = sorted((ROOT / "notebooks").rglob("*.py"))


def held_by_git(path: Path) -> str:
    """The file as it would be committed: a notebook that somebody just ran in JupyterLab has outputs, and may.

    The file itself where git does not hold it yet.
    """
    shown = subprocess.run(["git", "show", f":./{path.name}"], cwd=path.parent, capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else path.read_text()


def test_there_is_a_quickstart_to_open():
    assert ROOT / "notebooks" / "00_quickstart.py" in TWINS


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_notebook_and_its_twin_have_the_same_cells(twin: Path):
    notebook = nbformat.reads(held_by_git(twin.with_suffix(".ipynb")), as_version=4)
    config = jupytext.config.load_jupytext_config(str(twin))
    source = jupytext.reads(held_by_git(twin), fmt="py:percent", config=config)
    cells = [[(cell.cell_type, cell.source) for cell in side.cells] for side in (notebook, source)]
    assert cells[0] == cells[1], f"{twin.name} and its .ipynb differ. Type `make notebooks`."


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_no_outputs(twin: Path):
    notebook = nbformat.reads(held_by_git(twin.with_suffix(".ipynb")), as_version=4)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code_cells] == [[]] * len(code_cells)
    assert {cell.execution_count for cell in code_cells} <= {None}
