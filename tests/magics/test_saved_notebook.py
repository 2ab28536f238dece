"""A notebook that was run by nbclient and turned into a page: nothing a model wrote is markup in it."""

from __future__ import annotations

import html

import nbformat
import pytest
from live_kernel import ENGINES, FAKE
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

pytestmark = pytest.mark.slow

HOSTILE = "<script>x=1</script><img src=a onerror=x>"
# a real engine that can say nothing else
REAL = f"%load_ext llmlab\n%llm load smollm2-135m\nonly = {{'const': {HOSTILE!r}}}"
LOAD = f"import sys; sys.path.append({ENGINES!r})\n%load_ext llmlab\n%llm load letters -e {FAKE} --as fake"


def executed(*cells: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3").execute()
    return notebook


def test_tags_of_a_model_show_as_text_everywhere():
    shown = ("%llm --schema only -o r Hi", "r", "%%llm batch --schema only -o run\nHi", "run", "%llm --show-prompt <b>")
    notebook = executed(REAL, *shown)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert html.unescape(page).count("<script>x=1</script>") >= 4
    assert "<script>x=1" not in page
    assert "<img src=a" not in page


def test_without_a_front_end_an_answer_is_one_text_and_its_footer():
    cell = executed(LOAD, "%llm -n 30 Hello there")["cells"][1]
    (output,) = cell.outputs
    assert output.output_type == "stream"
    answer, footer = output.text.splitlines()
    assert len(answer) == 30
    assert footer.startswith("fake 1 · letters · seed 0 · ")


@pytest.mark.parametrize(
    ("cell", "message"), [("%llm " + "x" * 400, "max_model_len is 256"), ("%llm Hi --max-token 3", "UsageError")]
)
def test_a_cell_that_fails_stops_run_all(cell: str, message: str):
    with pytest.raises(CellExecutionError) as error:
        executed(LOAD, cell, "never = 1")
    assert message in str(error.value)
