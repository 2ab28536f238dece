"""A student at lab 3 in JupyterLab: a check fails, both pictures are seen, the code is repaired, the check passes."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_lab import Notebook, Server
from playwright.sync_api import BrowserContext, Page, expect

from llmlab.labs.finding import find_lab
from llmlab.labs.master import cells_of, notebook, with_solutions, without_solutions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LAB = find_lab("lab03")
MASTER = (LAB.folder / "lab.py").read_text()
[SOLUTION] = [cell.text for cell in cells_of(with_solutions(MASTER)) if cell.text.startswith("class BlockPool")]
# the child of a fork writes into the block that its parent still reads
MISTAKE = SOLUTION.replace("self.ref_counts[table[-1]] > 1", "False")
SET_SOURCE = "([i, text]) => jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.setSource(text)"


def type_into(opened: Notebook, cell: int, text: str) -> None:
    opened.page.evaluate(SET_SOURCE, [cell, text])


def screenshot(page: Page, name: str) -> None:
    """Into $LLMLAB_SCREENSHOTS, for whoever wants to look."""
    if folder := os.environ.get("LLMLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


def test_a_student_fails_a_check_sees_both_pictures_repairs_the_code_and_passes(
    server: Server, context: BrowserContext
):
    folder = server.root / "lab3"
    folder.mkdir()
    file = folder / f"{LAB.name}.ipynb"
    file.write_text(notebook(without_solutions(MASTER)))
    cells = nbformat.read(file, as_version=4).cells
    at = {cell.source.split("\n")[-1]: i for i, cell in enumerate(cells) if cell.cell_type == "code"}
    [pool] = [i for i, cell in enumerate(cells) if cell.source.startswith("class BlockPool")]
    check = at["%llm lab check Q4"]
    page = context.new_page()
    try:
        opened = Notebook(page, server, f"lab3/{file.name}")
        assert MISTAKE != SOLUTION
        for cell in (
            at["%llm lab start lab03"],
            at["import llmlab"],
            at["from llmlab.scheduling.contracts import BlockCopy"],
        ):
            opened.run_cell(cell)
        type_into(opened, pool, MISTAKE)
        opened.run_cell(pool)
        opened.run_cell(check)
        shown = opened.output(sum(cell.cell_type == "code" for cell in cells[:check]))
        expect(shown).to_contain_text("the child writes token 7 into block 6, which the parent still reads")
        expect(shown).to_contain_text("10 of 25 points")
        picture = shown.locator("img")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.naturalWidth") >= 1000
        alt = picture.get_attribute("alt") or ""
        assert "yours     !0:-×0" in alt and "expected  !0:c×1" in alt
        screenshot(page, "lab03_fails.png")
        type_into(opened, pool, SOLUTION)
        opened.run_cell(pool)
        opened.run_cell(check)
        expect(shown).to_contain_text("25 of 25 points")
        expect(shown.locator("img")).to_have_count(0)
        screenshot(page, "lab03_passes.png")
    finally:
        page.close()
        server.end_kernels()
