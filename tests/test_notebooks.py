"""A notebook and its .py twin say the same, what git holds of it has no outputs, and it runs from top to bottom."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

import llmlab
from llmlab.engines.packages import missing
from llmlab.magics.parsing import parse
from llmlab.magics.resolve import split_cell_verb, split_verb

ROOT = Path(__file__).resolve().parent.parent
TWINS = sorted((ROOT / "notebooks").rglob("*.py"))
# what a notebook loads that does not run everywhere
NEEDS_VLLM = ("01_same_model_two_engines",)
# what must be seen in a notebook whose lesson is a mishap
SHOWN = {"09_gateway_dashboard": "engine_died"}
# which run in `make test`: the others take minutes, and tests/browser runs the quickstart
SHORT = ("02_watch_the_engine",)


def held_by_git(path: Path) -> str:
    """The file as it would be committed: a notebook that somebody just ran in JupyterLab has outputs, and may.

    The file itself where git does not hold it yet.
    """
    shown = subprocess.run(["git", "show", f":./{path.name}"], cwd=path.parent, capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else path.read_text()


def in_time(name: str) -> pytest.MarkDecorator:
    return pytest.mark.slow if name in SHORT else pytest.mark.soak


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


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_what_one_will_be_able_to_explain_and_has_short_cells(twin: Path):
    cells = nbformat.read(twin.with_suffix(".ipynb"), as_version=4).cells
    assert "you will be able to explain" in cells[0].source
    lengths = [len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code"]
    assert max(lengths) <= 12


def calls(cell: str) -> Iterator[ast.Call]:
    """Every call in a code cell, magics too: %llm and %%llm are calls of a method of the shell."""
    code = TransformerManager().transform_cell(cell)
    yield from (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))


def ours(node: ast.expr) -> Any:
    """What `llmlab.name.name` stands for; None for all else. Raises: AttributeError when it is not there."""
    if isinstance(node, ast.Name):
        return llmlab if node.id == "llmlab" else None
    if isinstance(node, ast.Attribute) and (of := ours(node.value)) is not None:
        return getattr(of, node.attr)
    return None


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_what_a_notebook_types_is_there(twin: Path):
    """Its lines of %llm have verbs and flags, and what it calls of llmlab takes these arguments."""
    num_checked = 0
    for cell in nbformat.read(twin.with_suffix(".ipynb"), as_version=4).cells:
        for call in calls(cell.source) if cell.cell_type == "code" else ():
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("run_line_magic", "run_cell_magic"):
                name, line = (argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant))
                if name == "llm":
                    split = split_verb if call.func.attr == "run_line_magic" else split_cell_verb
                    parse(*split(str(line)))
            elif (function := ours(call.func)) is not None:
                keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                inspect.signature(function).bind_partial(*call.args, **keywords)
            else:
                continue
            num_checked += 1
    assert num_checked > 3


@pytest.mark.parametrize("twin", [pytest.param(t, marks=in_time(t.stem), id=t.stem) for t in TWINS])
def test_a_notebook_runs_from_top_to_bottom_without_network(twin: Path, monkeypatch: pytest.MonkeyPatch):
    if twin.stem in NEEDS_VLLM and (lack := missing("vllm")):
        pytest.skip(lack)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    notebook = nbformat.read(twin.with_suffix(".ipynb"), as_version=4)
    started_s = time.monotonic()
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": twin.parent}}).execute()
    assert SHOWN.get(twin.stem, "") in json.dumps([cell.get("outputs") for cell in notebook.cells])
    print(f"{twin.stem}: {time.monotonic() - started_s:.0f} s")  # 90 s at most on a quiet machine with two cores
