"""Each question is checked in a process of its own: what hangs, eats memory or crashes fails by name, alone."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from textwrap import dedent, indent

import pytest

from llmlab.labs import judging
from llmlab.labs.finding import load_lab
from llmlab.labs.judging import Judge
from llmlab.labs.results import Results

CHECKS = """
from llmlab.labs.description import Check, CheckFailed, Lab, Question

def two(names, seed):
    if names["one"]() != 1:
        raise CheckFailed("one() is not 1")

def three(names, seed):
    print("checked", flush=True)
    if names["two"]() != 2:
        raise CheckFailed("two() is not 2")

LAB = Lab(
    "A lab", 5, (),
    (
        Question("Q1", "first", ("one",), (Check("first", 3, lambda names, seed: None), Check("second", 4, two))),
        Question("Q2", "second", ("two",), (Check("third", 5, three),)),
    ),
    forbidden=("json.decoder",),
)
"""


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    folder = tmp_path / "lab99_small"
    folder.mkdir()
    (folder / "checks.py").write_text(CHECKS)
    (folder / "reference.py").write_text("def one():\n    return 1\n\n\ndef two():\n    return 2\n")
    return Judge(load_lab(folder))


def check(judge: Judge, body: str) -> Results:
    """one() is `body`, two() is right."""
    return judge.source(f"def one():\n{indent(dedent(body), '    ')}\n\ndef two():\n    return 2\n")


BAD_DAYS = {
    "endless": ("while True:\n    pass", r"Q1 was stopped after 1 s: an endless loop in one\(\), line [23]"),
    "swallows": (
        "while True:\n    try:\n        one()\n    except BaseException:\n        pass",
        r"Q1 was stopped after 1 s: an endless loop in one\(\), line \d",
    ),
    "endless in C": (
        "import itertools\nsum(itertools.count())",
        r"Q1 was stopped after 1 s: an endless loop in one\(\)",
    ),
    "memory": (
        "x = bytes(2**28)\nwhile True:\n    x += x",
        r"Q1 needed more than 1 GiB of memory .* in one\(\), line 4: x \+= x",
    ),
    "exit": ("import sys\nsys.exit(0)", r"Q1 ended Python with sys\.exit\(\) in one\(\), line 3"),
    "hard exit": ("import os\nos._exit(0)", r"Q1 ended its process before it was checked \(exit status 0\)"),
    "segfault": ("import ctypes\nctypes.string_at(0)", r"Q1 crashed Python \(SIGSEGV\) in one\(\), line 3"),
    "recursion": ("return one()", r"RecursionError: .* in one\(\), line 2: return one\(\)"),
    "input": ("return int(input())", r"EOFError"),
    "floods": ("while True:\n    print('x' * 10000)", r"Q1 was stopped after 1 s"),
    "child holds the pipes": (
        "import os\nif os.fork() == 0:\n    import time\n    time.sleep(60)\nos._exit(3)",
        r"Q1 ended its process before it was checked \(exit status 3\)",
    ),
    "unwritten": ("raise NotImplementedError('Q1')", r"^Q1 is not written yet\.$"),
    "forbidden": ("from json.decoder import JSONDecoder", r"^json\.decoder has the answer in it\. Write Q1 yourself"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_DAYS)
def test_whatever_happens_in_a_question_it_fails_by_name_and_the_rest_is_graded(
    judge: Judge, name: str, monkeypatch: pytest.MonkeyPatch
):
    body, sentence = BAD_DAYS[name]
    if "stopped after 1 s" in sentence:
        monkeypatch.setattr(judging, "LEAST_S", 1.0)
    results = check(judge, body)
    (first, second), (third,) = results.of("Q1"), results.of("Q2")
    assert re.search(sentence, second.reason), second.reason
    if name == "forbidden":
        assert not first.passed and not third.passed  # one source text has all
    else:
        assert first.passed and third.passed and results.earned == 8
    assert len(results.output) <= judging.OUTPUT_BYTES


@pytest.mark.slow
def test_code_that_does_not_run_says_where_and_a_missing_name_what_to_do(judge: Judge):
    results = judge.source("one = 1 / 0\n")
    assert {check.reason for check in results.checks} == {
        "your code does not run: ZeroDivisionError: division by zero in <module>(), line 1: one = 1 / 0"
    }
    names = {"one": lambda: 2}
    question = judge._lab.questions
    assert list(judge.names(names, question).reasons().items()) == [
        ("Q1 second", "one() is not 1"),
        ("Q2 third", "Q2 needs two: run the cell that defines it."),
    ]


@pytest.mark.slow
def test_a_name_that_cannot_travel_fails_its_question_only(judge: Judge):
    lock = threading.Lock()
    results = judge.names({"one": lambda: lock, "two": lambda: 2}, judge._lab.questions)
    assert "one cannot be sent to the process that checks it (TypeError" in results.of("Q1")[0].reason
    assert results.of("Q2")[0].passed and "checked" in results.output


@pytest.mark.slow
def test_a_submission_that_used_up_its_time_has_a_little_left_for_each_question(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    judge._left_s = 0.5
    monkeypatch.setattr(judging, "LEAST_S", 1.0)
    results = check(judge, "while True:\n    pass")
    assert results.of("Q1")[1].reason.startswith("Q1 was stopped after 1 s") and results.of("Q2")[0].passed
