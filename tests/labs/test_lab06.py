"""Lab 6: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_support import (
    assert_mistake_is_told,
    mistake_of,
    mistakes_of,
    raw_points,
    reasons_of,
    source_of,
    with_mistake,
)

from llmlab.labs.finding import find_lab
from llmlab.labs.judging import Judge
from llmlab.labs.pictures import png_of, text_of

LAB = find_lab("lab06")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 90
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert set(reasons.values()) == {f"Q{i} is not written yet." for i in (2, 3, 4, 5, 8)}


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS)


def test_there_are_all_mistakes_of_the_specification():
    assert len(MISTAKES) >= 20


def test_an_unknown_mistake_is_told_the_first_byte_that_differs_and_what_is_in_it():
    source = source_of(LAB, "reference.py") + (
        "\n\nclass Q4_0(Q4_0):\n    def quantize(self, x):\n        made = super().quantize(x)\n"
        "        made[3, 7] ^= 0x50\n        return made\n"
    )
    reason = reasons_of(LAB, source)["Q3 bytes"]
    assert (
        "Q4_0, normal values: 1 of 7200 bytes differ: first in block 3, byte 7 (weight 5 low, weight 21 high)" in reason
    )


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ("super().quantize(x).ravel()", "quantize returned the shape (13600,), expected (400, 34)"),
        ("super().quantize(x).astype(np.int16)", "quantize returned int16, expected uint8"),
        ("super().quantize(x).tolist()", "quantize returned a list, expected a numpy array"),
    ],
)
def test_what_is_no_array_of_bytes_is_told_what_it_is(returned: str, sentence: str):
    source = source_of(LAB, "reference.py") + (
        f"\n\nclass Q8_0(Q8_0):\n    def quantize(self, x):\n        return {returned}\n"
    )
    assert reasons_of(LAB, source)["Q2 bytes"] == sentence


def test_each_way_to_the_answer_that_is_there_already_is_forbidden():
    from llmlab.labs.submission import forbidden_import, from_source

    for line in ("from gguf import quants", "import llama_cpp", "from llmlab.models.quantize import Q8_0"):
        assert forbidden_import(from_source(line), LAB.forbidden), line


@pytest.mark.slow
def test_in_processes_the_points_are_the_same_and_a_failed_check_comes_with_both_pictures():
    path = mistake_of(LAB, "q4_no_clip")
    results = Judge(LAB, with_hidden=True).source(with_mistake(LAB, path))
    assert (results.earned, results.points) == (65 + 4, 94)
    (failed, _) = (check for check in results.of("Q3") if not check.passed)
    title, yours, expected, sentence = text_of(failed.picture).splitlines()
    assert title.startswith("after Q4_0().quantize(...), block ") and sentence.strip() == failed.reason
    assert yours.split()[:3] == ["yours", "d", expected.split()[2]] and "!" in yours
    assert failed.picture is not None and png_of(failed.picture).startswith(b"\x89PNG")


def test_the_students_notebook_has_no_solution_in_it():
    from llmlab.labs.master import without_solutions

    master = source_of(LAB, "lab.py")
    for line in ("np.take_along_axis", "codes += np.sign", "another 53 MB"):
        assert line in master and line not in without_solutions(master)
