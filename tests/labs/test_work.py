"""A student's work: a notebook that is never overwritten, predictions with their time, hints that count, one report."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from lab_support import source_of

import llmlab
from llmlab.labs import work
from llmlab.labs.finding import find_lab
from llmlab.labs.record import Record

Captured = pytest.CaptureFixture[str]
LAB = find_lab("lab03")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no lab started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "_current", None)
    return tmp_path


def run_with(*allocated: int) -> Any:
    """Something like a run whose request got these numbers of blocks, one number a step."""
    steps = [SimpleNamespace(kv=SimpleNamespace(allocated={"r1": tuple(range(n))})) for n in allocated]
    return SimpleNamespace(trace=SimpleNamespace(step_records=steps))


def test_start_copies_the_notebook_and_never_overwrites_work(folder: Path):
    assert str(llmlab.labs.start("lab03")).endswith("is yours: open it and work from top to bottom.")
    notebook = folder / "lab03_paged_kv.ipynb"
    import nbformat

    nbformat.validate(nbformat.read(notebook, as_version=4))
    notebook.write_text("my work")
    assert "is kept as it is" in str(llmlab.labs.start("lab03"))
    assert notebook.read_text() == "my work"
    llmlab.labs.start("LAB03", folder / "elsewhere")
    assert (folder / "elsewhere" / notebook.name).exists()


def test_a_wrong_name_has_a_near_one_and_nothing_started_says_what_to_type(folder: Path):
    with pytest.raises(llmlab.LlmlabError, match=r"Unknown lab 'lab3'\. Known: .*lab03.* Did you mean 'lab03'"):
        llmlab.labs.start("lab3")
    with pytest.raises(llmlab.LlmlabError, match=r"No lab is started in .* `%llm lab start ID`"):
        llmlab.labs.hint("Q2")
    llmlab.labs.start("lab03")
    with pytest.raises(llmlab.LlmlabError, match=r"Unknown question 'Q9'"):
        llmlab.labs.check("Q9")
    with pytest.raises(llmlab.LlmlabError, match=r"Q2 asks for no prediction. Those that do: Q1, Q4, Q6"):
        llmlab.labs.predict("Q2", 1)
    with pytest.raises(llmlab.LlmlabError, match=r"Q5 has no hints"):
        llmlab.labs.hint("Q5")


def test_another_kernel_in_the_folder_goes_on_with_the_lab(folder: Path, monkeypatch: pytest.MonkeyPatch):
    llmlab.labs.start("lab03")
    monkeypatch.setattr(work, "_current", None)
    assert "Q2, hint 1 of 3" in str(llmlab.labs.hint("q2"))


def test_a_prediction_is_on_disk_with_its_time_before_the_truth_is_told(folder: Path):
    llmlab.labs.start("lab03")
    names = {"q1": run_with(3, 0, 1, 1)}
    (note,) = llmlab.labs.check("Q1", names=names).notes
    assert note.startswith("Q1: predict before you look: 37 prompt tokens") and "5" not in note.split("%llm")[1]
    llmlab.labs.predict("Q1", 12)
    assert "written down beside 12" in str(llmlab.labs.predict("Q1", 4))
    lines = [json.loads(line) for line in (folder / "lab03_paged_kv.record.jsonl").read_text().splitlines()]
    made = [line for line in lines if line["event"] == "predict"]
    assert [line["value"] for line in made] == [12, 4]
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(made[0]["at"])).total_seconds()) < 60
    (note,) = llmlab.labs.check("Q1", names=names).notes
    assert note.startswith("≠ Q1: you: 4, your run: 5, because")
    assert "too late to count" in str(llmlab.labs.predict("Q1", 5, names={}))
    assert [one["in_time"] for one in Record(folder / "lab03_paged_kv.record.jsonl").predictions("Q1")] == [
        True, True, False,
    ]  # fmt: skip
    (note,) = llmlab.labs.check("Q1", names=names).notes
    assert "you: 4" in note  # what counts is the last one in time
    (note,) = llmlab.labs.check("Q1", names={}).notes
    assert note.startswith("Q1: run the cell that fills `q1` first")


def test_a_prediction_made_after_the_cell_has_run_is_kept_and_does_not_count(folder: Path):
    llmlab.labs.start("lab03")
    names = {"q1": run_with(5)}
    assert "too late to count" in str(llmlab.labs.predict("Q1", 5, names=names))
    (note,) = llmlab.labs.check("Q1", names=names).notes
    assert note.startswith("✓ Q1: you: 5, your run: 5")
    assert "0.0 of 6 for predictions" in llmlab.labs.report().read_text()


def test_hints_come_in_stages_and_are_counted_once_each(folder: Path):
    llmlab.labs.start("lab03")
    said = [str(llmlab.labs.hint("Q2")) for _ in range(4)]
    assert [text.split(":")[0] for text in said] == [f"Q2, hint {i} of 3" for i in (1, 2, 3, 3)]
    assert said[0].endswith("`%llm lab hint Q2` again says more.") and said[2].endswith("That was the last one.")
    assert [one["number"] for one in Record(folder / "lab03_paged_kv.record.jsonl").events("hint")] == [1, 2, 3]


def test_a_record_cut_off_half_way_keeps_what_came_before(tmp_path: Path):
    record = Record(tmp_path / "r.jsonl")
    record.add("hint", question="Q1", number=1)
    with record.path.open("a") as file:
        file.write('{"at": "2026-01-01T00:00:00+00:00", "event": "hi')
    assert [one["number"] for one in record.events("hint")] == [1]


@pytest.mark.slow
def test_the_verbs_check_what_the_notebook_defines_and_the_report_has_it_all(
    folder: Path, shell: InteractiveShell, capsys: Captured
):
    def llm(line: str) -> object:
        return shell.run_line_magic("llm", line)

    llm("lab start lab03")
    llm("lab predict Q4 2,5")
    llm("lab hint Q4")
    shell.run_cell(source_of(LAB, "reference.py"), store_history=True)
    results: Any = llm("lab check Q4")
    assert results.passed and results.earned == 25
    assert "run the cell that fills `q4` first" in results.notes[0]
    shell.run_cell("q4 = [2, 5]")
    assert llm("lab check Q4").notes[0].startswith("✓ Q4: you: [2, 5], your run: [2, 5]")  # type: ignore[attr-defined]
    wrong = "class BlockPool(BlockPool):\n    def free(self, seq_id):\n        self.tables.pop(seq_id, None)\n"
    shell.run_cell(wrong, store_history=True)
    failed: Any = llm("lab check Q3")
    assert failed.reasons()["Q3 free"] == "after free('s') 4 blocks are free, expected 6"
    path: Any = llm("lab report")
    page = path.read_text()
    for piece in (
        "2, 5",
        "after free(&#x27;s&#x27;) 4 blocks",
        "data:image/png",
        "1 of 3",
        "Q6 was not checked",
    ):
        assert piece in page, piece
    assert "Score so far: " in page
    # 1 of 3 predictions in time, fork and copy on write, append
    assert f"{6 / 3:.1f} of 6" in page and f"{0.9 * 35:.1f} of {0.9 * 75:.1f} for code" in page
    told = capsys.readouterr().out
    assert "Lab 3: paged KV: 25 of 25 points" in told and "yours" in told and "expected" in told


def test_each_verb_prints_its_python_twin(folder: Path, shell: InteractiveShell, capsys: Captured):
    twins = {
        "lab list": "list()",
        "lab start lab03": "start('lab03')",
        "lab start lab03 there": "start('lab03', 'there')",
        "lab predict Q4 2,5": "predict('Q4', (2, 5))",
        "lab predict Q1 five": "predict('Q1', 'five')",
        "lab check": "check()",
        "lab check Q2": "check('Q2')",
        "lab hint Q2": "hint('Q2')",
        "lab report": "report()",
    }
    for line, call in twins.items():
        assert shell.run_line_magic("llm", f"{line} --show-code") is None
        assert capsys.readouterr().out == f"import llmlab\nllmlab.labs.{call}\n"
    assert list(folder.iterdir()) == []  # nothing was done


def test_a_verb_without_its_question_is_one_line(shell: InteractiveShell):
    with pytest.raises(UsageError, match=r"%llm lab hint Q needs Q: a question of the lab"):
        shell.run_line_magic("llm", "lab hint")
    with pytest.raises(UsageError, match=r"%llm lab needs list, start, predict, check, hint, report, and got 'coats'"):
        shell.run_line_magic("llm", "lab coats are white because")


def test_tab_offers_labs_and_questions(folder: Path):
    from llmlab.magics.offers import complete

    assert complete(" lab st", False, {}) == (["start"], "st")
    assert "lab03" in (complete(" lab start ", False, {})[0] or [])
    assert complete(" lab hint ", False, {})[0] == []
    llmlab.labs.start("lab03")
    assert complete(" lab hint Q", False, {})[0] == [f"Q{i}" for i in range(1, 8)]


def test_the_process_that_checks_imports_no_engine_and_no_widget():
    code = (
        "import sys, llmlab.labs.judge; "
        "print(*({'torch', 'IPython', 'anywidget', 'PIL', 'psutil', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []
