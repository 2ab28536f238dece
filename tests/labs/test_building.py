"""What is made from a lab: students get no answers, other graders the lab's points, public and hidden tests."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab_support import LAB_IDS, source_of
from small_lab import GOOD

from llmlab import cli
from llmlab.errors import LlmlabError
from llmlab.labs import exported, finding
from llmlab.labs.building import build, remake_starters
from llmlab.labs.description import Lab, withheld
from llmlab.labs.files import for_students, packed_checks
from llmlab.labs.finding import find_lab, load_lab
from llmlab.labs.master import with_solutions, without_solutions
from llmlab.labs.public_checks import public_checks

SECRETS = ("secret_one", "int(pi) - 1", "secret answer", "BEGIN SOLUTION", "is_two_for_all_seeds", "hidden_helper")


@pytest.fixture
def for_class(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labs as an installation for students has them."""
    labs = tmp_path / "exercises"
    for name, content in for_students(lab.folder).items():
        (labs / lab.name / name).parent.mkdir(parents=True, exist_ok=True)
        (labs / lab.name / name).write_bytes(content)
    monkeypatch.setattr(finding, "LABS", labs)
    return labs


def cells_of(path: Path) -> list[Any]:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    return list(book.cells)


def solution_lines(lab: Lab) -> set[str]:
    """Long lines of a master's solutions that its other text does not have."""
    master = source_of(lab, "lab.py")
    public = without_solutions(master)
    lines = {line.strip() for line in with_solutions(master).splitlines() if len(line.strip()) > 25}
    return {line for line in lines if line not in public}


def test_the_command_builds_the_named_labs_and_says_where(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["labs", "build", str(tmp_path / "out"), "lab99"])
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "out" / path)
        for path in (
            "student/lab99_small.ipynb",
            "otter/lab99_small/lab99_small.ipynb",
            "otter/lab99_small/lab99_small.checks.zip",
            "nbgrader/source/lab99_small/lab99_small.ipynb",
            "nbgrader/nbgrader_config.py",
        )
    ]
    with pytest.raises(SystemExit, match="Unknown lab 'lab98'"):
        cli.main(["labs", "build", str(tmp_path / "out"), "lab98"])


def test_the_same_lab_gives_the_same_bytes(lab: Lab, tmp_path: Path):
    first, second = (build(tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_no_line_of_a_solution_and_no_hidden_check_is_in_what_students_get(lab_id: str, tmp_path: Path):
    lab = find_lab(lab_id)
    build(tmp_path, [lab_id])
    built = "".join(path.read_text() for path in (tmp_path / "student").rglob("*"))
    texts = [json.dumps(line, ensure_ascii=False)[1:-1] for line in solution_lines(lab)]
    assert len(texts) >= 5 and not [text for text in texts if text in built]
    installed = for_students(lab.folder)["lab.py"].decode()
    assert not [line for line in solution_lines(lab) if line in installed]
    assert "SOLUTION" not in built + installed


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_an_installation_for_students_has_the_same_questions_and_withholds_hidden_checks(lab_id: str, tmp_path: Path):
    lab = find_lab(lab_id)
    folder = tmp_path / lab.name
    folder.mkdir()
    for name, content in for_students(lab.folder).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    theirs = load_lab(folder)

    def told(lab: Lab) -> list[Any]:
        checks = [[(c.name, c.points, c.is_hidden) for c in q.checks] for q in lab.questions]
        return [lab.title, checks, [(q.question_id, q.needs, q.hints, q.builds_on) for q in lab.questions]]

    assert told(theirs) == told(lab)
    for question in theirs.questions:
        assert [check.is_hidden for check in question.checks] == [check.run is withheld for check in question.checks]


def test_what_only_hidden_checks_need_stays_out(lab: Lab):
    assert SECRETS[-1] in source_of(lab, "checks.py")
    everything = b"".join(for_students(lab.folder).values()).decode()
    assert not [secret for secret in SECRETS if secret in everything]
    assert "def is_two(" in everything and for_students(lab.folder)["two.txt"] == b"2"
    with pytest.raises(ValueError, match="line 1: write Check"):
        public_checks("LAB = Check('a', 1, run=f, is_hidden=True)")


def test_a_student_starts_and_checks_without_the_answers(
    for_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from llmlab.labs import work

    monkeypatch.setattr(work, "_current", None)
    work.start("lab99", tmp_path / "mine")
    text = (tmp_path / "mine" / "lab99_small.ipynb").read_text()
    assert 'raise NotImplementedError(\\"Q1\\")  # about 1 line' in text
    assert not [secret for secret in SECRETS if secret in text]
    with pytest.raises(LlmlabError, match=r"lab99 is for students: .* Clone the repository"):
        build(tmp_path / "out")


def test_starters_are_written_anew_from_the_master(lab: Lab):
    (lab.folder / "reference.py").unlink()
    assert [path.name for path in remake_starters()] == ["starter.py", "reference.py"]
    names: dict[str, Any] = {}
    exec(source_of(lab, "reference.py"), names)
    assert names["one"]() == 1 and names["two"]() == 2
    assert source_of(lab, "starter.py").splitlines()[:5] == [
        '"""What a student of lab 99 starts with: the definitions of his notebook. Made from lab.py."""',
        "",
        "# ruff: noqa: F401",
        "",
        "from math import pi",
    ]
    assert "# Functions of your own, if you like." in source_of(lab, "starter.py")


def test_the_otter_source_has_marks_points_and_hidden_tests(lab: Lab, tmp_path: Path):
    build(tmp_path)
    cells = cells_of(tmp_path / "otter/lab99_small/lab99_small.ipynb")
    assert [cell.source for cell in cells if cell.cell_type == "raw"][1:5] == [
        "# BEGIN QUESTION\nname: q1", "# BEGIN TESTS", "# END TESTS", "# END QUESTION",
    ]  # fmt: skip
    [hidden] = [cell.source for cell in cells if "hidden: true" in cell.source]
    assert hidden == (
        '""" # BEGIN TEST CONFIG\npoints: 10\nhidden: true\n""" # END TEST CONFIG\ndef test_for_all_seeds(env):\n'
        "    from llmlab.labs.exported import check\n"
        "    check('lab99', 'Q3', 'for all seeds', env, hidden_in='lab99_small.checks.zip')"
    )
    [two] = [cell.source for cell in cells if cell.source.startswith("def two")]
    assert two.splitlines()[2:] == [
        "    # BEGIN SOLUTION NO PROMPT",
        "    return int(pi) - 1",
        "    # END SOLUTION",
        '    """ # BEGIN PROMPT',
        '    raise NotImplementedError("Q2")  # about 1 line',
        '    """; # END PROMPT',
    ]
    points = sum(int(found) for cell in cells for found in re.findall(r"^points: (\d+)$", cell.source, re.MULTILINE))
    assert points == 30 + 20 + 10 + 2


def test_the_nbgrader_source_has_locked_tests_and_a_line_for_students_beside_each_solution(lab: Lab, tmp_path: Path):
    build(tmp_path)
    cells = cells_of(tmp_path / "nbgrader/source/lab99_small/lab99_small.ipynb")
    marked = [(cell.metadata.nbgrader, cell.source) for cell in cells if "nbgrader" in cell.metadata]
    assert [(m.grade_id, m.get("points"), m.locked) for m, _ in marked] == [
        ("solution-5", None, False),
        ("Q1-is_one", 30, True),
        ("solution-8", None, False),
        ("Q2-is_two", 20, True),
        ("Q3-for_all_seeds", 10, True),
        ("solution-13", None, False),
        ("Q4-secret", 2, True),
    ]
    sources = {m.grade_id: source for m, source in marked}
    assert sources["Q3-for_all_seeds"].splitlines()[::3] == [
        "# Q3: 10 points are checked when your work is graded.",
        "check('lab99', 'Q3', 'for all seeds', globals())",
    ]
    assert sources["solution-13"].startswith('reflection = [""]\n### BEGIN SOLUTION\nreflection = ["of the')
    assert sources["solution-8"].endswith(
        '    return\n    ### END SOLUTION\n    raise NotImplementedError("Q2")  # about 1 line'
    )


def test_other_graders_run_no_engine(lab: Lab, tmp_path: Path):
    build(tmp_path)
    for path in tmp_path.rglob("lab99_small/*.ipynb"):
        skipped = [cell.source for cell in cells_of(path) if "skip-execution" in cell.metadata.get("tags", ())]
        checks = [f"%llm lab check Q{i}" for i in (1, 2, 3, 4)]
        first_lines = ["%load_ext llmlab", "import llmlab", 'engine = llmlab.load("smollm2-135m")', *checks]
        assert [source.splitlines()[0] for source in skipped] == first_lines


@pytest.mark.slow
def test_a_test_of_another_grader_fails_with_the_reason_and_finds_hidden_checks_in_the_zip(
    lab: Lab, for_class: Path, tmp_path: Path
):
    names: dict[str, Any] = {}
    exec(GOOD, names)
    exported.check("lab99", "Q1", "is one", names)
    with pytest.raises(AssertionError, match=r"one\(\) is 5, expected 1"):
        exported.check("lab99", "Q1", "is one", {**names, "one": lambda: 5})
    with pytest.raises(AssertionError, match="Q1 needs one: run the cell that defines it"):
        exported.check("lab99", "Q1", "is one", {})
    with pytest.raises(LlmlabError, match="The hidden checks of lab99 are not in this installation"):
        exported.check("lab99", "Q3", "for all seeds", names)
    (tmp_path / "lab99_small.checks.zip").write_bytes(packed_checks(lab.folder))
    exported.check("lab99", "Q3", "for all seeds", names, str(tmp_path / "lab99_small.checks.zip"))


def test_the_packed_checks_hold_what_checks_open_and_no_solution(lab: Lab):
    with zipfile.ZipFile(io.BytesIO(packed_checks(lab.folder))) as packed:
        assert packed.namelist() == ["lab99_small/checks.py", "lab99_small/two.txt"]
