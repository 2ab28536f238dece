"""Lab 5: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

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

import llmlab
from llmlab.labs.finding import find_lab
from llmlab.labs.judging import Judge
from llmlab.labs.pictures import png_of, text_of
from llmlab.labs.pictures_cache import differing
from llmlab.labs.submission import from_source

LAB = find_lab("lab05")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 100
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert {reason for reason in reasons.values() if not reason.endswith("is not written yet.")} == set()


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS[:1])


@pytest.mark.soak
@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_it_loses_the_same_with_other_seeds(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS[1:])


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 15


def test_the_pool_of_the_library_is_as_good(monkeypatch: pytest.MonkeyPatch):
    """Other ids, other hashes, no num_cached_blocks: the checks look at the contract alone."""
    ours = """
from llmlab.scheduling.block_pool import PagedPool


class PrefixBlockPool(PagedPool):
    pass


class RepairedPool(PagedPool):
    pass
"""
    monkeypatch.setattr("llmlab.labs.judge.forbidden_base", lambda value, forbidden: None)
    reasons = reasons_of(LAB, f"{source_of(LAB, 'reference.py')}\n\n{ours}")
    assert {reason for reason in reasons.values() if reason} == set()


@pytest.mark.soak
def test_a_pool_that_publishes_early_answers_wrongly_after_an_interrupt_and_a_repaired_one_rightly():
    names = from_source(source_of(LAB, "reference.py")).names()
    eager, repaired = (
        llmlab.labs.after_interrupt(names[name], "The first president of the United States was George")
        for name in ("EagerPool", "RepairedPool")
    )
    assert (eager.num_hit_tokens, eager.num_prompt_tokens) == (8, 9) and not eager.is_right
    assert repaired.num_hit_tokens == 0 and repaired.is_right and "Washington" in repaired.answer


@pytest.mark.slow
def test_in_processes_a_failed_check_comes_with_both_pictures():
    path = mistake_of(LAB, "poison_hash_in_allocate")
    results = Judge(LAB, with_hidden=True).source(with_mistake(LAB, path))
    assert (results.earned, results.points) == (85 + 4, 104)
    (failed,) = (check for check in results.of("Q5") if not check.passed)
    assert failed.picture is not None and differing(failed.picture) == [0, 1, 2]
    lines = text_of(failed.picture).splitlines()
    assert lines[0] == "after an interrupt:"
    assert lines[1].startswith("  yours     !0:cached×0[A0] no KV!  !1:cached×0[A1] no KV!  !2:cached×0[A2] no KV!")
    assert lines[2].strip() == "lookup A → 0 → 1 → 2" and lines[4].strip() == "lookup A → –"
    assert png_of(failed.picture).startswith(b"\x89PNG")
