"""Lab 3: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

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
from llmlab.labs.master import cells_of, without_solutions
from llmlab.labs.pictures import differing, png_of, text_of

LAB = find_lab("lab03")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 100
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert set(reasons.values()) == {f"Q{i} is not written yet." for i in (2, 6, 7)}


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS)


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 8


def test_what_follows_from_an_earlier_mistake_names_it():
    reasons = reasons_of(LAB, with_mistake(LAB, mistake_of(LAB, "last_block_lost")))
    cause = "Fix Q2 first: 1 token in blocks of 4: 0 blocks, expected 1"
    assert [name for name, reason in reasons.items() if reason.endswith(cause)] == [
        "Q3 append",
        "Q4 fork",
        "Q4 copy on write",
        "Q5 random histories",
    ]


@pytest.mark.slow
def test_in_processes_the_points_are_the_same_and_a_failed_check_comes_with_both_pictures():
    results = Judge(LAB, with_hidden=True).source(with_mistake(LAB, mistake_of(LAB, "no_copy_on_write")))
    assert (results.earned, results.points) == (65 + 4, 104)
    (failed,) = (check for check in results.of("Q4") if not check.passed)
    assert failed.picture is not None and differing(failed.picture) == [0, 6]
    assert text_of(failed.picture).splitlines() == [
        "after append('c', 1):",
        "  yours     !0:-×0  1:-×0  2:-×0  3:-×0  4:-×0  5:-×0  !6:p+c×2  7:p+c×2  free 6",
        "  expected  !0:c×1  1:-×0  2:-×0  3:-×0  4:-×0  5:-×0  !6:p×1  7:p+c×2  free 5",
        "  the child writes token 7 into block 6, which the parent still reads: copy on write",
    ]
    assert png_of(failed.picture).startswith(b"\x89PNG")
    assert "data:image/png;base64," in results._repr_html_()


def test_the_master_is_read_as_jupytext_reads_it():
    import jupytext

    master = source_of(LAB, "lab.py")
    theirs = jupytext.reads(master, fmt="py:percent").cells
    ours = cells_of(master)
    assert [cell.text for cell in ours] == [cell.source for cell in theirs]
    assert [cell.is_code for cell in ours] == [cell.cell_type == "code" for cell in theirs]


def test_the_students_notebook_has_no_solution_in_it():
    cells = cells_of(without_solutions(source_of(LAB, "lab.py")))
    text = "\n".join(cell.text for cell in cells)
    assert "SOLUTION" not in text
    for line in ("self.ref_counts[block] += 1", "copies.append", "kv_tokens // max_model_len", "holes between"):
        assert line in source_of(LAB, "lab.py") and line not in text


@pytest.mark.parametrize(
    "source",
    [
        "import llmlab.scheduling.block_pool as bp\nclass BlockPool(bp.PagedPool): pass\n",
        "from llmlab.scheduling.block_pool import PagedPool\nclass BlockPool:\n    def __init__(self, *given):\n"
        "        self.pool = PagedPool(*given)\n",
    ],
    ids=["inherited", "held"],
)
def test_a_pool_of_ours_under_another_name_is_no_solution(source: str):
    from llmlab.labs.judge import judged
    from llmlab.labs.order import Order
    from llmlab.labs.submission import from_source

    results = list(judged(Order(LAB.folder, "Q2", from_source(source), 0, False)))
    assert {one["reason"] for one in results} == {
        "llmlab.scheduling.block_pool has the answer in it. Write Q2 yourself: leave that out, and it counts."
    }
