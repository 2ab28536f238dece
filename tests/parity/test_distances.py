"""Distances between distributions, by hand; and which of them a bound lets pass."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.engines.base import Floats
from llmlab.parity.distances import BOUNDS, distance, log_softmax, merged


def logits_of(*rows: list[float]) -> Floats:
    return np.log(np.array(rows, np.float32))


def test_a_constant_added_to_a_row_changes_nothing():
    logits = np.random.default_rng(0).normal(size=(7, 100)).astype(np.float32)
    shifted = logits + np.arange(7, dtype=np.float32)[:, None]
    assert distance(logits, log_softmax(shifted).astype(np.float32)).max_diff < 1e-5


def test_huge_logits_do_not_overflow():
    assert np.isfinite(log_softmax(np.array([[1e4, 0.0, -1e4]], np.float32))).all()


def test_kl_is_that_of_the_textbook():
    d = distance(logits_of([0.5, 0.25, 0.25]), logits_of([0.25, 0.5, 0.25]))
    assert d.kl_mean == pytest.approx(0.25 * np.log(2), abs=1e-6)  # 0.5 ln 2 - 0.25 ln 2
    assert d.max_diff == pytest.approx(np.log(2), abs=1e-6)
    assert (d.num_top1_equal, d.num_positions) == (0, 1)
    assert d.top1_gap == pytest.approx(np.log(2), abs=1e-6)


def test_several_texts_weigh_by_their_positions():
    same, other = logits_of([0.5, 0.5]), logits_of([0.9, 0.1])
    one = distance(np.repeat(same, 3, axis=0), np.repeat(same, 3, axis=0))
    two = distance(same, other)
    both = merged([one, two])
    assert both.num_positions == 4
    assert both.kl_mean == pytest.approx(two.kl_max / 4)
    assert both.kl_max == two.kl_max


def test_the_bounds_are_those_of_the_design():
    assert BOUNDS["float32"].max_diff == 0.01
    assert BOUNDS["float16"].max_diff == 0.2
    assert BOUNDS["quantized"].kl_mean == 0.05
    assert BOUNDS["quantized"].max_diff is None
