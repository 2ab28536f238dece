"""Lab 2: the reference earns everything, the starter nothing, each known mistake loses what it should and is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

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
from llmlab.labs.pictures_weights import differing, weights_picture

LAB = find_lab("lab02")
SEEDS = (0, 1, 2)
MISTAKES = mistakes_of(LAB)


@pytest.mark.parametrize("seed", [*SEEDS, 3, 4])
def test_the_reference_earns_all_and_the_starter_nothing_with_readable_reasons(seed: int):
    assert raw_points(LAB, reasons_of(LAB, source_of(LAB, "reference.py"), seed)) == 100
    reasons = reasons_of(LAB, source_of(LAB, "starter.py"), seed)
    assert raw_points(LAB, reasons) == 0
    assert set(reasons.values()) == {f"Q{i} is not written yet." for i in (2, 3, 4, 5, 6)}


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_each_mistake_loses_what_it_should_and_is_told_its_cause(path: Path):
    assert_mistake_is_told(LAB, path, SEEDS)


def test_there_are_enough_mistakes():
    assert len(MISTAKES) >= 13


def test_the_checks_agree_with_the_library():
    """What the checks count by themselves is what engines and charts of llmlab count."""
    checks = SimpleNamespace(**LAB.question("Q4").checks[0].run.__globals__)
    from llmlab.models import get, kv_bytes_per_token
    from llmlab.views.plots.work import decode_work, prefill_work

    cfg = get("smollm2-135m").config
    assert all(getattr(cfg, name) == getattr(checks.SMALL, name) for name in (
        "num_layers", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size"
    ))  # fmt: skip
    assert checks.exact_kv_bytes(1, cfg) == kv_bytes_per_token(cfg) == 23_040
    assert checks.exact_kv_bytes(8192, checks.BIG) == 2**30
    for work, n, c in ((decode_work(cfg, 1, context=101), 1, 100), (prefill_work(cfg, 100), 100, 0)):
        assert checks.exact_flops(cfg, n, c) == work.flops
        assert checks.exact_bytes(cfg, n, c, 269e6) == pytest.approx(work.num_bytes, rel=1e-3)


def test_the_formula_of_the_library_is_no_answer_though_the_notebook_has_llmlab_at_hand():
    from llmlab.labs.submission import forbidden_import, from_source

    theirs = "def kv_bytes(n, cfg, size=2):\n    return n * llmlab.models.kv_bytes_per_token(cfg, size)\n"
    assert forbidden_import(from_source(theirs), LAB.forbidden) == "llmlab.models.kv_bytes_per_token"
    assert forbidden_import(from_source("cfg = llmlab.models.get('smollm2-135m').config\n"), LAB.forbidden) is None


@pytest.mark.slow
def test_in_processes_the_points_are_the_same_and_a_failed_check_comes_with_both_pictures():
    path = mistake_of(LAB, "mask_not_shifted")
    results = Judge(LAB, with_hidden=True).source(with_mistake(LAB, path))
    assert (results.earned, results.points) == (75 + 4, 104)
    failed = next(check for check in results.of("Q2") if not check.passed)
    assert failed.picture is not None and differing(failed.picture)
    told = text_of(failed.picture).splitlines()
    # the one token sees key 0 only, and should see all nine
    assert told[1].split() == ["yours", "token", "8", "!1.0", *["!."] * 8]
    assert told[-1].strip().startswith("the causal mask ignores the computed tokens")
    assert png_of(failed.picture).startswith(b"\x89PNG")


def test_weights_that_differ_are_marked_in_text():
    picture = weights_picture(
        [[1.0, 0.0], [float("nan"), 0.5]], [[1.0, 0.0], [0.5, 0.5]], rows=["token 0", "token 1"], columns=["0", "1"],
        call="attention()", sentence="a token must see itself",
    )  # fmt: skip
    assert differing(picture) == [(1, 0)]
    assert text_of(picture).splitlines() == [
        "after attention():",
        "  yours     token 0   1.0 .",
        "            token 1   !nan .50",
        "  expected  token 0   1.0 .",
        "            token 1   !.50 .50",
        "  a token must see itself",
    ]
    assert png_of(picture).startswith(b"\x89PNG")
