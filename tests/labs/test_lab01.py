"""Lab 1: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
from llmlab.labs.pictures_bars import bars_of, bars_picture, differing
from llmlab.parity.draws import chi_square
from llmlab.quality.loops import find_loop

LAB = find_lab("lab01")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", [*SEEDS, 3, 4])
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 85
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert set(reasons.values()) == {f"Q{i} is not written yet." for i in (2, 3, 4, 5, 7)}


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS)


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 12


def test_a_decoder_written_without_codecs_is_as_good():
    by_hand = """
class StreamDecoder:
    def __init__(self):
        self.held = b""

    def push(self, piece):
        self.held += piece
        for back in (1, 2, 3):
            if len(self.held) < back:
                break
            first = self.held[-back]
            if first >= 0xC2 and (4 if first >= 0xF0 else 3 if first >= 0xE0 else 2) > back:
                whole, self.held = self.held[:-back], self.held[-back:]
                return whole.decode(errors="replace")
            if first < 0x80 or first >= 0xC0:
                break
        whole, self.held = self.held, b""
        return whole.decode(errors="replace")

    def flush(self):
        return self.held.decode(errors="replace")
"""
    reasons = reasons_of(LAB, source_of(LAB, "reference.py") + by_hand)
    assert raw_points(LAB, reasons) == 85, reasons


@pytest.mark.slow
def test_in_processes_the_points_are_the_same_and_a_failed_check_comes_with_both_pictures():
    path = mistake_of(LAB, "min_p_absolute")
    results = Judge(LAB, with_hidden=True).source(with_mistake(LAB, path))
    assert (results.earned, results.points) == (60 + 4, 89)
    failed = next(check for check in results.of("Q4") if not check.passed)
    assert failed.picture is not None and differing(failed.picture)
    told = text_of(failed.picture).splitlines()
    assert "!" in told[1] and "(cut)" in told[1] and "(min-p)" in told[2]
    assert png_of(failed.picture).startswith(b"\x89PNG")


def test_bars_that_differ_are_marked_in_text():
    picture = bars_picture(
        bars_of([0.5, 0.25, float("nan")], ["", "", ""]), bars_of([0.5, 0.25, 0.25], ["", "top-k", "top-k"]),
        ["#7", "#3", "#9"], axis="probability", call="top_k 1", sentence="one is too many",
    )  # fmt: skip
    assert differing(picture) == [1, 2]
    assert text_of(picture).splitlines() == [
        "after top_k 1 (probability):",
        "  yours     #7:0.5  !#3:0.25  !#9:nan",
        "  expected  #7:0.5  !#3:(top-k)  !#9:(top-k)",
        "  one is too many",
    ]
    assert png_of(picture).startswith(b"\x89PNG")


def test_chi_square_tells_a_wrong_distribution_from_a_right_one():
    probs = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    drawn = np.random.default_rng(0).choice(5, 2000, p=probs).tolist()
    right, wrong = chi_square(drawn, probs), chi_square(drawn, np.array([0.35, 0.3, 0.2, 0.1, 0.05]))
    assert right.dof == 3 and right.value < right.limit
    assert wrong.dof == 4 and wrong.value > 5 * wrong.limit
    assert chi_square([*drawn, 4], probs).num_outside == 1
    with pytest.raises(ValueError, match="3 draws are too few"):
        chi_square([0, 1, 2], probs)


def test_a_loop_is_found_at_the_end_only():
    assert find_loop([1, 1, 1, 2, 3]) is None
    assert find_loop([9, 8, *[1, 2, 3] * 4, 1]) == (2, 3)
    assert find_loop([4] * 5) == (0, 1)
