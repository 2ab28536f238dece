"""The notebook of lab 3 with the reference filled in runs on real engines, and what it shows is what the lab says."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest
from lab_support import source_of
from nbclient import NotebookClient

from llmlab.labs.finding import find_lab
from llmlab.labs.master import notebook, with_solutions

LAB = find_lab("lab03")


@pytest.mark.soak
def test_with_the_reference_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    book = nbformat.reads(notebook(with_solutions(source_of(LAB, "lab.py"))), as_version=4)
    predictions = "%llm lab predict Q1 4\n%llm lab predict Q4 2,5\n%llm lab predict Q6 4,8,8"
    book.cells.insert(3, nbformat.v4.new_code_cell(predictions))
    started_s = time.monotonic()
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    print(f"{LAB.name}: {time.monotonic() - started_s:.0f} s")  # 180 s at most on a quiet machine with two cores
    shown = {cell.source: str(cell.outputs) for cell in book.cells if cell.cell_type == "code"}
    assert "Q1: you: 4, your run: 5" in shown["%llm lab check Q1"]
    assert "20 of 20 points" in shown["%llm lab check Q3"]
    assert "8 requests took" in shown["%llm lab check Q3"]
    assert "Q4: you: [2, 5], your run: [2, 5]" in shown["%llm lab check Q4"]
    assert "all 16 answers equal those of the engine" in shown["%llm lab check Q5"]
    assert "4 of 4 points" in shown["%llm lab check Q7"]
    report = (tmp_path / "lab03_paged_kv.report.html").read_text()
    assert "6.0 of 6 for predictions before the run, 4 of 4 for reflection, 67.5 of 67.5 for code" in report
