"""Each lab's notebook with the reference filled in runs on real engines, offline, and shows what the lab says."""

from __future__ import annotations

import re
import time
from pathlib import Path

import nbformat
import pytest
from lab_support import LAB_IDS, source_of
from nbclient import NotebookClient

from llmlab.labs.finding import find_lab
from llmlab.labs.master import notebook, with_solutions

# Guesses count whatever they are; these are the truth where it is the same on every machine.
GUESSES = {
    "lab01": {"Q1": "3,1,3"},
    "lab02": {"Q4": "23040,1073741824", "Q5": "1.0,79"},
    "lab03": {"Q1": "4", "Q4": "2,5", "Q6": "4,8,8"},
    "lab04": {"Q1": "0.743", "Q3": "281", "Q4": "32,7.1", "Q5": "4,158", "Q6": "0.18"},
    "lab05": {"Q3": "32", "Q4": "1,2", "Q5": "wrong"},
    "lab06": {"Q1": "92", "Q5": "143"},
}
# What the checks of a question must have shown.
SHOWN = {
    "lab01": {
        "Q1": ["✓ Q1: you: [3, 1, 3]"],
        "Q2": ["the text of the engine, token by token"],
        "Q3": ["whatever its temperature"],
        "Q5": ["your run: "],
    },
    "lab02": {
        "Q1": ["by the clock"],
        "Q2": ["24 tokens as from the engine"],
        "Q3": ["200 at the end; from your cache 24 tokens as from the engine"],
        "Q4": ["✓ Q4", "within 1 % of your formula: torch 46,080, llamacpp 23,040, vllm"],
        "Q5": ["✓ Q5"],
    },
    "lab03": {
        "Q1": ["Q1: you: 4, your run: 5"],
        "Q3": ["8 requests took"],
        "Q4": ["Q4: you: [2, 5], your run: [2, 5]"],
        "Q5": ["all 16 answers equal those of the engine"],
    },
    "lab04": {
        "Q1": ["✓ Q1"],
        "Q2": ["14 real requests took 160 steps"],
        "Q3": ["✓ Q3", "79 steps; the longest gap of a running answer holds 281 tokens"],
        "Q4": ["✓ Q4", "88 steps; the longest gap of a running answer holds 32 tokens"],
        "Q5": ["✓ Q5", "all finished"],
        "Q6": ["✓ Q6", "user b waited 40.5 steps for a first token, now 7.2"],
    },
    "lab05": {
        "Q1": ["2480 tokens of prefill without a cache, 80 with one"],
        "Q3": ["✓ Q3", "3 later requests found 96 tokens in your pool and computed 51"],
        "Q4": ["✓ Q4"],
        "Q5": ["✓ Q5: you: wrong"],
        "Q6": ["all 8 answers equal those of the engine without a cache; seven users found 224 tokens"],
    },
    "lab06": {
        "Q1": ["✓ Q1"],
        "Q3": ["0 of the 142,884,864 bytes of Q8_0 differ. 0 of the 59,719,680 bytes of Q4_0 differ."],
        "Q4": ["your run: [0.43, 12.5]"],
        "Q5": ["✓ Q5"],
    },
}


@pytest.mark.soak
@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_with_the_reference_the_notebook_runs_from_top_to_bottom(
    lab_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    lab = find_lab(lab_id)
    book = nbformat.reads(notebook(with_solutions(source_of(lab, "lab.py"))), as_version=4)
    started = next(i for i, cell in enumerate(book.cells) if "%llm lab start" in cell.source)
    guesses = dict.fromkeys(lab.predictions, "1") | GUESSES.get(lab_id, {})
    lines = "\n".join(f"%llm lab predict {name} {value}" for name, value in guesses.items())
    book.cells.insert(started + 1, nbformat.v4.new_code_cell(lines))
    began_s = time.monotonic()
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    print(f"{lab.name}: {time.monotonic() - began_s:.0f} s")  # 180 s at most on a quiet machine with two cores
    last = {}
    for cell in book.cells:
        if asked := re.fullmatch(r"%llm lab check (Q\d+)", cell.source.strip()):
            last[asked[1]] = str(cell.outputs)
    for question_id, output in last.items():
        assert "✕" not in output and "run the cell" not in output, (question_id, output)
        for text in SHOWN.get(lab_id, {}).get(question_id, ()):
            assert text in output, (question_id, output)
    report = (tmp_path / f"{lab.name}.report.html").read_text()
    questions = [question for question in lab.questions if not question.is_reflection]
    raw = sum(check.points for question in questions for check in question.checks)
    public = sum(check.points for question in questions for check in question.checks if not check.is_hidden)
    code = f"{90 * public / raw:.1f}"
    assert f"6.0 of 6 for predictions before the run, 4 of 4 for reflection, {code} of {code} for code" in report
