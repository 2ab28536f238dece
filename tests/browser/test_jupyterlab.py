"""What a user sees: a real JupyterLab in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_lab import Notebook
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

Open = Callable[..., Notebook]
ROOT = Path(__file__).resolve().parents[2]
# an engine without a model, which repeats its prompt
FAKE = f"""import sys
sys.path.append({str(ROOT / "tests" / "engines")!r})
%load_ext llmlab
%llm load letters -e fake_engine:FakeEngine"""


def test_the_quickstart_runs_from_top_to_bottom(notebook: Open):
    source = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    cells = [cell.source for cell in source.cells if cell.cell_type == "code"]
    opened = notebook("quickstart.ipynb", *cells)
    opened.run_all()
    saved = opened.saved()
    assert [output for cell in saved.cells for output in cell.outputs if output.output_type == "error"] == []
    expect(opened.output(cells.index("%llm Why is the sky blue? -n 48 -t 0"))).to_contain_text(
        re.compile(r"llamacpp .* · smollm2-135m Q4_1 · seed 0 · 36\+48 tokens · TTFT \d+ ms · \d+ tok/s")
    )
    batch = next(i for i, cell in enumerate(cells) if cell.startswith("%%llm batch"))
    expect(opened.output(batch).locator("tbody tr")).to_have_count(8)


def test_an_answer_grows_in_its_place_and_ends_as_markdown(notebook: Open):
    opened = notebook("ask.ipynb", FAKE, "%llm slow 0.03", "%llm **bold** x -n 120", "_")
    for cell in (0, 1):
        opened.start_cell(cell)
        opened.wait_idle()
    opened.start_cell(2)
    shown = opened.output(2)
    expect(shown).to_contain_text("**bold**")
    length = len(shown.inner_text())
    expect(shown).to_contain_text(re.compile(f"^.{{{length + 10},}}", re.DOTALL))
    expect(shown.locator("strong").first).to_have_text("bold", timeout=20_000)
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("120 tokens · TTFT")
    opened.start_cell(3)
    expect(opened.output(3)).to_contain_text("120 tokens · TTFT")


def test_the_stop_button_keeps_what_came_and_the_engine_goes_on(notebook: Open):
    opened = notebook("stop.ipynb", FAKE, "%llm slow 0.05", "%llm Hello -n 240", "%llm slow 0", "%llm Hello -n 5")
    for cell in (0, 1):
        opened.start_cell(cell)
        opened.wait_idle()
    opened.start_cell(2)
    expect(opened.output(2)).to_contain_text("Hello")
    opened.page.locator('.jp-NotebookPanel:not(.lm-mod-hidden) [data-command="notebook:interrupt-kernel"]').click()
    expect(opened.output(2)).to_contain_text("· interrupted", timeout=5_000)
    for cell in (3, 4):
        opened.start_cell(cell)
        opened.wait_idle()
    expect(opened.output(4)).to_contain_text("+5 tokens")


def test_what_a_model_writes_is_text_and_never_runs(notebook: Open):
    hostile = "<script>window.owned=1</script><img src=x onerror=window.owned=2>"
    # a schema that allows one text only: the engine can say nothing else
    load = f"%load_ext llmlab\n%llm load smollm2-135m\nonly = {{'const': {hostile!r}}}"
    ask = "%llm Hi --schema only"
    opened = notebook("hostile.ipynb", load, f"{ask} -o r", "r", "%%llm batch --schema only\nHi", f"{ask} -f html")
    opened.run_all()
    for cell in (1, 2, 3):
        expect(opened.output(cell)).to_contain_text("<script>window.owned=1</script>")
        expect(opened.output(cell).locator("img, script")).to_have_count(0)
    assert opened.output(4).locator("iframe").get_attribute("sandbox") == ""
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("() => window.owned") is None
