"""otter-grader and nbgrader on what is built for them: the reference earns all, a mistake its points, the student's
notebook next to nothing.
"""

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
from lab_support import LAB_IDS, mistakes_of, source_of

from llmlab.labs.building import build
from llmlab.labs.description import Lab
from llmlab.labs.finding import find_lab

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

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


def points_of_checks(lab: Lab) -> float:
    return sum(check.points for question in lab.questions for check in question.checks)


def otter_points(folder: Path, name: str, notebook: Path) -> tuple[float, str]:
    """What `otter run` gives a notebook, and all that it tells."""
    [autograder] = (folder / "dist" / "autograder").glob("*-autograder_*.zip")
    out = folder / name
    out.mkdir()
    run(folder, "otter", "run", "-a", str(autograder), str(notebook), "--no-logo", "-o", str(out))
    tests = json.loads((out / "results.json").read_text())["tests"]
    return sum(test.get("score", 0) for test in tests), json.dumps(tests)


def nbgrader_points(course: Path, lab: Lab, notebooks: dict[str, Path]) -> dict[str, tuple[float, float]]:
    """What `nbgrader autograde` gives each student, and the most that there is."""
    for student, notebook in notebooks.items():
        submitted = course / "submitted" / student / lab.name / f"{lab.name}.ipynb"
        submitted.parent.mkdir(parents=True, exist_ok=True)
        if notebook != submitted:
            shutil.copy(notebook, submitted)
    run(course, "nbgrader", "autograde", lab.name)
    run(course, "nbgrader", "export")
    with (course / "grades.csv").open(newline="") as file:
        return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_otter_assigns_every_lab(lab_id: str, tmp_path: Path):
    lab = find_lab(lab_id)
    build(tmp_path, [lab_id])
    folder = tmp_path / "otter" / lab.name
    run(folder, "otter", "assign", f"{lab.name}.ipynb", "dist")  # fails unless the solution passes all tests
    points, _ = otter_points(folder, "starter", folder / "dist" / "student" / f"{lab.name}.ipynb")
    assert points <= 0.1 * points_of_checks(lab)


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_nbgrader_grades_every_lab(lab_id: str, tmp_path: Path):
    lab = find_lab(lab_id)
    build(tmp_path, [lab_id])
    course = tmp_path / "nbgrader"
    run(course, "nbgrader", "generate_assignment", lab.name)
    source, release = (course / kind / lab.name / f"{lab.name}.ipynb" for kind in ("source", "release"))
    points = nbgrader_points(course, lab, {"reference": source, "starter": release})
    most = points_of_checks(lab)
    assert points["reference"] == (most, most)
    assert points["starter"][0] <= 0.1 * most


def test_otter_names_a_mistake_and_hides_the_solution(tmp_path: Path):
    build(tmp_path, [LAB.lab_id])
    folder = tmp_path / "otter" / LAB.name
    run(folder, "otter", "assign", NAME, "dist")  # and runs all tests on the solution
    student = "".join(path.read_text() for path in (folder / "dist" / "student").rglob("*") if path.is_file())
    assert "SOLUTION" not in student and "self.ref_counts[block] += 1" not in student
    assert "random histories" not in student and 'raise NotImplementedError(\\"Q4\\")' in student
    with_mistake_in(folder / "dist" / "autograder" / NAME, folder / "mistake.ipynb")
    assert otter_points(folder, "starter", folder / "dist" / "student" / NAME)[0] == 0
    points, told = otter_points(folder, "mistake", folder / "mistake.ipynb")
    assert points == 65 + 4
    assert "the child writes token 7 into block 6, which the parent still reads: copy on write" in told


def test_nbgrader_names_a_mistake_and_hides_the_solution(tmp_path: Path):
    build(tmp_path, [LAB.lab_id])
    course = tmp_path / "nbgrader"
    run(course, "nbgrader", "generate_assignment", LAB.name)
    release = course / "release" / LAB.name / NAME
    text = release.read_text()
    assert "SOLUTION" not in text and "self.ref_counts[block] += 1" not in text
    assert "random histories" not in text and 'raise NotImplementedError(\\"Q4\\")' in text
    source = course / "source" / LAB.name / NAME
    mistake = course / "submitted" / "mistake" / LAB.name / NAME
    with_mistake_in(source, mistake)
    points = nbgrader_points(course, LAB, {"reference": source, "starter": release, "mistake": mistake})
    assert points == {"reference": (104, 104), "starter": (0, 104), "mistake": (69, 104)}
    assert "the child writes token 7 into block" in (course / "autograded" / "mistake" / LAB.name / NAME).read_text()
    assert source_of(LAB, "lab.py").count("%llm lab check") == text.count("%llm lab check")
