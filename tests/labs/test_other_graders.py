"""otter-grader and nbgrader on what is built for them: the reference earns all, the student's notebook nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab_support import mistakes_of, source_of

from llmlab.labs.building import build
from llmlab.labs.finding import find_lab

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

LAB = find_lab("lab03")
NAME = f"{LAB.name}.ipynb"
MISTAKE = next(path for path in mistakes_of(LAB) if path.stem == "no_copy_on_write")


def run(folder: Path, *command: str) -> None:
    """A tool of this environment, whose kernels are of this environment, too."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def with_mistake_in(notebook: Path, to: Path) -> None:
    """A copy of a solved notebook in which a student got one thing wrong."""
    book = nbformat.read(notebook, as_version=4)
    [cell] = [cell for cell in book.cells if cell.source.startswith("class BlockPool")]
    cell.source += f"\n\n{MISTAKE.read_text()}"
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, to)


def test_otter_assigns_and_grades(tmp_path: Path):
    build(tmp_path, [LAB.lab_id])
    folder = tmp_path / "otter" / LAB.name
    run(folder, "otter", "assign", NAME, "dist")  # and runs all tests on the solution
    student = "".join(path.read_text() for path in (folder / "dist" / "student").rglob("*") if path.is_file())
    assert "SOLUTION" not in student and "self.ref_counts[block] += 1" not in student
    assert "random histories" not in student and 'raise NotImplementedError(\\"Q4\\")' in student
    [autograder] = (folder / "dist" / "autograder").glob("*-autograder_*.zip")
    with_mistake_in(folder / "dist" / "autograder" / NAME, folder / "mistake.ipynb")
    points = {}
    for name, notebook in (("starter", folder / "dist" / "student" / NAME), ("mistake", folder / "mistake.ipynb")):
        out = folder / name
        out.mkdir()
        run(folder, "otter", "run", "-a", str(autograder), str(notebook), "--no-logo", "-o", str(out))
        tests = json.loads((out / "results.json").read_text())["tests"]
        points[name] = sum(test.get("score", 0) for test in tests)
        told = json.dumps(tests)
    assert points == {"starter": 0, "mistake": 65 + 4}
    assert "the child writes token 7 into block 6, which the parent still reads: copy on write" in told


def test_nbgrader_generates_and_autogrades(tmp_path: Path):
    build(tmp_path, [LAB.lab_id])
    course = tmp_path / "nbgrader"
    run(course, "nbgrader", "generate_assignment", LAB.name)
    release = course / "release" / LAB.name / NAME
    text = release.read_text()
    assert "SOLUTION" not in text and "self.ref_counts[block] += 1" not in text
    assert "random histories" not in text and 'raise NotImplementedError(\\"Q4\\")' in text
    source = course / "source" / LAB.name / NAME
    for student, notebook in (("reference", source), ("starter", release)):
        submitted = course / "submitted" / student / LAB.name / NAME
        submitted.parent.mkdir(parents=True)
        shutil.copy(notebook, submitted)
    with_mistake_in(source, course / "submitted" / "mistake" / LAB.name / NAME)
    run(course, "nbgrader", "autograde", LAB.name)
    run(course, "nbgrader", "export")
    with (course / "grades.csv").open(newline="") as file:
        points = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert points == {"reference": (104, 104), "starter": (0, 104), "mistake": (69, 104)}
    assert "the child writes token 7 into block" in (course / "autograded" / "mistake" / LAB.name / NAME).read_text()
    assert source_of(LAB, "lab.py").count("%llm lab check") == text.count("%llm lab check")
