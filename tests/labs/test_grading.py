"""A folder of submissions is graded whole, whatever is in it; a run that was killed goes on where it was."""

from __future__ import annotations

import csv
import selectors
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_lab import GOOD, notebook_text, with_large_output

from llmlab import cli
from llmlab.errors import LlmlabError
from llmlab.labs import grading, judging
from llmlab.labs.description import Lab
from llmlab.labs.record import Record

WRONG = GOOD.replace("return 2", "return 3")


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    folder = tmp_path / "handed in"
    folder.mkdir()
    return folder


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_good_wrong_hanging_crashing_and_damaged_submissions_are_all_scored_alike_twice(
    lab: Lab, handed_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (handed_in / "Ann Lee").mkdir()
    (handed_in / "Ann Lee" / "lab99_small.ipynb").write_text(notebook_text("%load_ext llmlab", GOOD))
    record = Record(handed_in / "Ann Lee" / "lab99_small.record.jsonl")
    record.add("predict", question="Q1", value=1, has_run=False)
    record.add("figures", figures=[["Q1", 5, ""]])
    (handed_in / "wrong.py").write_text(WRONG)
    (handed_in / "hangs.py").write_text(f"{GOOD}\ndef one():\n    while True: pass\n")
    (handed_in / "bomb.py").write_text(f"{GOOD}\ndef one():\n    x = [0]\n    while True: x += x\n")
    (handed_in / "crash.py").write_text(f"{GOOD}\ndef one():\n    import os\n    os.abort()\n")
    Record(handed_in / "crash.record.jsonl").add("figures", figures=[["Q1", 41, ""]])
    cut = with_large_output(notebook_text("print(1)", GOOD, "print(2)"), 100_000)
    (handed_in / "cut.ipynb").write_text(cut[:-200])
    (handed_in / "cut.record.jsonl").write_bytes(b'7\n{"event": "predict"}\n\xff\n')
    (handed_in / "=nothing").mkdir()
    (handed_in / "essay.pdf").write_bytes(b"%PDF")
    table = tmp_path / "out.csv"
    arguments = ["labs", "grade", str(handed_in), "--csv", str(table), "--lab", "lab99", "--jobs", "2"]
    cli.main(arguments)
    rows = rows_of(table)
    assert {student: float(row["score"]) for student, row in rows.items()} == {
        "'=nothing": 0, "Ann Lee": 98, "bomb": 47, "crash": 45, "cut": 92, "essay": 0, "hangs": 47, "wrong": 47,
    }  # fmt: skip
    assert rows["Ann Lee"]["predictions of 6"] == "6.0" and rows["Ann Lee"]["notes"] == ""
    assert rows["wrong"]["Q2 why"] == "is two: two() is 3" and rows["wrong"]["Q1 of 30"] == "30"
    assert "Q1 was stopped after 3 s: an endless loop in one()" in rows["hangs"]["Q1 why"]
    assert "answer 1 names 5, and no figure of your own runs" in rows["crash"]["Q4 why"]
    assert "Q4: no figures of a run came with these answers" in rows["wrong"]["notes"]
    assert "more than 1 GiB of memory" in rows["bomb"]["Q1 why"] and "SIGABRT" in rows["crash"]["Q1 why"]
    assert "is damaged" in rows["cut"]["notes"] and "cut.record.jsonl cannot be read" in rows["cut"]["notes"]
    assert "No notebook was found in =nothing" in rows["'=nothing"]["notes"]
    assert "neither a notebook nor a Python file" in rows["essay"]["notes"]
    assert "No record (lab99_small.record.jsonl) was handed in" in rows["wrong"]["notes"]
    page = (grading.folder_of(table) / "wrong.html").read_text()
    assert "Score: 47.0 of 100" in page and "two() is 3" in page and "return 3" in page
    before, told = table.read_bytes(), capsys.readouterr().out
    assert told.count("\n") == 9 and "8 submissions of lab99 are in" in told
    cli.main(arguments)
    assert "8 of them from an earlier run" in capsys.readouterr().out and table.read_bytes() == before
    for student in ("Ann Lee", "wrong", "cut", "crash"):
        (grading.folder_of(table) / f"{student}.json").unlink()
    cli.main([*arguments[:-1], "1"])
    assert "4 of them from an earlier run" in capsys.readouterr().out and table.read_bytes() == before


@pytest.mark.slow
def test_after_kill_9_nothing_is_graded_twice_nothing_is_lost_and_no_loop_runs_on(
    lab: Lab, handed_in: Path, tmp_path: Path
):
    for i in range(5):
        (handed_in / f"s{i}.py").write_text(GOOD)
    loops = tmp_path / "loops"
    (handed_in / "s3.py").write_text(
        f"{GOOD}\ndef one():\n    open({str(loops)!r}, 'w').close()\n    while True: pass\n"
    )
    table = tmp_path / "out.csv"
    code = (
        "import sys; from pathlib import Path; from llmlab import cli; from llmlab.labs import finding;"
        "finding.LABS = Path(sys.argv.pop(1)); cli.main()"
    )
    command = [sys.executable, "-c", code, str(lab.folder.parent), "labs", "grade", str(handed_in), "--csv", str(table)]
    command += ["--lab", "lab99", "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not loops.exists():
        time.sleep(0.02)
    checking = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    done = {path.stem: path.stat().st_mtime_ns for path in grading.folder_of(table).glob("*.json")}
    assert list(rows_of(table)) == sorted(done) == ["s0", "s1", "s2"]
    _, alive = psutil.wait_procs(checking, timeout=5)
    for child in alive:
        child.kill()
    assert checking and (not alive or sys.platform != "linux")
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"5 submissions of lab99 are in {table}, 3 of them from an earlier run" in again
    now = {path.stem: path.stat().st_mtime_ns for path in grading.folder_of(table).glob("*.json")}
    assert len(now) == 5 and done.items() <= now.items()
    assert [float(row["score"]) for row in rows_of(table).values()] == [92, 92, 92, 47, 92]


@pytest.mark.slow
def test_what_was_told_while_the_grader_had_no_cpu_counts(
    lab: Lab, handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Late(selectors.DefaultSelector):
        """Sees nothing until the process that checks has ended."""

        is_late = True

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if not self.is_late:
                return super().select(timeout)
            while not any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children()):
                time.sleep(0.05)
            self.is_late = False
            return []

    monkeypatch.setattr(judging.selectors, "DefaultSelector", Late)
    (handed_in / "a.py").write_text(GOOD)
    assert grading.grade(handed_in, tmp_path / "out.csv", lab_id="lab99", jobs=1).graded[0]["score"] == 92


@pytest.mark.slow
def test_a_changed_submission_is_graded_again_and_only_that_one(lab: Lab, handed_in: Path, tmp_path: Path):
    (handed_in / "a.py").write_text(WRONG)
    (handed_in / "b.py").write_text(GOOD)
    table = tmp_path / "out.csv"
    grading.grade(handed_in, table, lab_id="lab99")
    (handed_in / "a.py").write_text(GOOD)
    again = grading.grade(handed_in, table, lab_id="lab99")
    assert again.num_before == 1 and [one["score"] for one in again.graded] == [92, 92]


def test_a_failure_of_ours_is_told_and_tried_again(
    lab: Lab, handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (handed_in / "a.py").write_text(GOOD)
    table = tmp_path / "out.csv"
    monkeypatch.setattr(grading, "read", lambda path: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["labs", "grade", str(handed_in), "--csv", str(table), "--lab", "lab99"])
    assert ended.value.code == 1
    assert rows_of(table)["a"]["score"] == "" and "grading itself failed (ZeroDivisionError" in table.read_text()
    assert not (grading.folder_of(table) / "a.json").exists()


def test_the_files_say_which_lab_they_are_for(lab: Lab, handed_in: Path, tmp_path: Path):
    from llmlab.labs.submissions import lab_meant, submissions_in

    with pytest.raises(LlmlabError, match="There is no folder"):
        lab_meant(tmp_path / "gone", ["lab99"])
    with pytest.raises(LlmlabError, match="is empty"):
        lab_meant(handed_in, ["lab99"])
    (handed_in / "a.ipynb").write_text(notebook_text("x = 1"))
    with pytest.raises(LlmlabError, match=r"which lab .*\(none\)\. Name it: --lab lab03"):
        lab_meant(handed_in, ["lab99", "lab98"])
    (handed_in / "b.ipynb").write_text(notebook_text("%llm lab start lab99"))
    (handed_in / "c").mkdir()
    (handed_in / "c" / "lab99_small (2).ipynb").write_text("{}")
    (handed_in / "c" / "other.ipynb").write_text("{}")
    assert lab_meant(handed_in, ["lab99", "lab98"]) == "lab99"
    (handed_in / "d-LAB98.ipynb").write_text("{}")
    with pytest.raises(LlmlabError, match=r"\(lab98: 1, lab99: 2\)"):
        lab_meant(handed_in, ["lab99", "lab98"])
    (handed_in / ".DS_Store").write_text("")
    (handed_in / "c.ipynb").write_text("{}")
    found = {one.student: one.file and one.file.name for one in submissions_in(handed_in, lab)}
    assert found == {
        "a": "a.ipynb", "b": "b.ipynb", "c": "lab99_small (2).ipynb", "c.ipynb": "c.ipynb", "d-LAB98": "d-LAB98.ipynb",
    }  # fmt: skip
