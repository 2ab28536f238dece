"""Sentences that errors share."""

from __future__ import annotations

from llmlab.errors import MAX_KNOWN, unknown


def test_of_many_names_some_are_told_and_the_nearest():
    names = [f"student{number:03}" for number in range(1, 201)]
    text = unknown("student", "student20O", names)
    assert "student001, student002, " in text and f"student{MAX_KNOWN:03}, {200 - MAX_KNOWN} more." in text
    assert text.count("student") == 1 + 1 + MAX_KNOWN + 1  # kind, value, names, the nearest
    assert text.endswith("Did you mean 'student200'?")
