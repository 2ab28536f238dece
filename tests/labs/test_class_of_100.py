"""A class of 100 is graded on two cores in time: good, wrong, hanging, crashing, memory bombs, damaged notebooks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_support import mistakes_of, source_of, with_mistake
from small_lab import notebook_text, with_large_output

from llmlab.labs.finding import find_lab
from llmlab.labs.grading import Grading, folder_of, grade
from llmlab.labs.master import notebook, with_solutions, without_solutions

LAB = find_lab("lab03")
MOST_S = 30 * 60
METHOD = "\n\nclass BlockPool(BlockPool):\n    def {name}(self, *given):\n        {body}\n"
BAD = {
    "hangs": ("append", "while True: pass"),
    "hangs_at_once": ("__init__", "while True: pass"),
    "hangs_in_c": ("allocate", "import itertools; sum(itertools.count())"),
    "sleeps": ("free", "import time; time.sleep(1000)"),
    "bomb": ("append", "x = [0]\n        while True: x += x"),
    "bomb_of_bytes": ("fork", "self.x = bytearray(1 << 33)"),
    "segfault": ("fork", "import ctypes; ctypes.string_at(0)"),
    "exits": ("allocate", "import os; os._exit(0)"),
    "recursion": ("allocate", "return self.allocate(*given)"),
    "prints": ("append", "while True: print('x' * 1000)"),
    "is_killed": ("free", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "raises": ("append", "raise BaseException('no')"),
}


def submissions() -> Iterator[tuple[str, str, str]]:
    """Name, suffix, text."""
    reference, starter = source_of(LAB, "reference.py"), source_of(LAB, "starter.py")
    master = source_of(LAB, "lab.py")
    for i in range(15):
        yield f"good{i}", ".ipynb", notebook(with_solutions(master)).replace("Hand it in", f"Hand it in {i}")
    for i in range(5):
        yield f"unwritten{i}", ".ipynb", notebook(without_solutions(master)).replace("Hand it in", f"Hand it in {i}")
    for i in range(2):
        for path in mistakes_of(LAB):
            text = with_mistake(LAB, path)
            yield f"{path.stem}{i}", (".py", ".ipynb")[i], notebook_text(text, f"# {i}") if i else text
    for name, (method, body) in BAD.items():
        yield name, ".py", reference + METHOD.format(name=method, body=body)
        yield f"{name}_nb", ".ipynb", notebook_text(reference, METHOD.format(name=method, body=body))
    whole = notebook_text(*reference.split("\n\n\n"), "print(1)")
    yield "cut_off", ".ipynb", whole[: len(whole) * 2 // 3]
    yield "cut_at_the_end", ".ipynb", whole[:-300]
    yield "empty", ".ipynb", ""
    yield "no_cells", ".ipynb", notebook_text()
    yield "no_notebook", ".ipynb", "PK\x03\x04"
    yield "essay", ".txt", "I could not do it."
    yield "other_kernel", ".ipynb", notebook_text(reference, kernel="ir", language="R")
    yield "huge_output", ".ipynb", with_large_output(notebook_text("print(1)", reference), 50_000_000)
    yield "duplicated", ".ipynb", notebook_text(*reference.split("\n\n\n"), starter, *reference.split("\n\n\n"))
    yield "deleted", ".ipynb", notebook_text(*reference.split("\n\n\n")[:2])
    yield "syntax_error", ".ipynb", notebook_text(reference, "def f(:")
    yield "syntax_error_file", ".py", reference + "\ndef f(:\n"


@pytest.mark.soak
@pytest.mark.timeout(2 * MOST_S + 600)
def test_100_submissions_are_all_scored_in_time_and_alike_twice(tmp_path: Path):
    handed_in = tmp_path / "handed in"
    handed_in.mkdir()
    made = list(submissions())
    reference = source_of(LAB, "reference.py")
    made += [(f"more{i}", ".py", f"{reference}# {i}\n") for i in range(100 - len(made))]
    for name, suffix, text in made:
        (handed_in / f"{name}{suffix}").write_text(text)

    def graded(table: Path) -> tuple[Grading, float]:
        started_s = time.monotonic()
        return grade(handed_in, table, lab_id="lab03", jobs=2), time.monotonic() - started_s

    first, first_s = graded(tmp_path / "first.csv")
    print(f"100 submissions: {first_s:.0f} s")
    assert len(first.graded) == len(made) == 100 and first.is_complete and first_s < MOST_S
    assert len(list(folder_of(tmp_path / "first.csv").glob("*.html"))) == 100
    score = {one["student"]: one["score"] for one in first.graded}
    assert {score[f"good{i}"] for i in range(15)} == {94}
    assert {score[f"unwritten{i}"] for i in range(5)} == {0}
    for whole in ("cut_at_the_end", "other_kernel", "huge_output", "duplicated", "syntax_error"):
        assert score[whole] == 94, whole
    for nothing in ("empty", "no_cells", "no_notebook", "essay", "syntax_error_file"):
        assert score[nothing] == 0, nothing
    for name in (*BAD, "deleted", "cut_off", *(path.stem + "0" for path in mistakes_of(LAB))):
        assert score[name] < 94, name
    for name in BAD:
        assert score[name] == score[f"{name}_nb"], name
    second, second_s = graded(tmp_path / "second.csv")
    print(f"again: {second_s:.0f} s")
    assert {one["student"]: one["score"] for one in second.graded} == score
