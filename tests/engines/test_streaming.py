"""Text while it comes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llmlab.engines.streaming import StopMatcher, StreamDecoder


@given(text=st.text(), cuts=st.lists(st.integers(0, 200)))
def test_however_the_bytes_are_cut_the_text_is_whole(text, cuts):
    raw = text.encode()
    edges = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    decoder = StreamDecoder()
    pieces = [decoder.push(raw[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join(pieces) + decoder.flush() == text


def test_a_text_that_ends_inside_a_character_ends_with_one_mark():
    decoder = StreamDecoder()
    assert decoder.push("a😀".encode()[:4]) == "a"
    assert decoder.flush() == "\ufffd"


@given(st.text("abx", max_size=30), st.lists(st.text("abx", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_what_is_shown_is_the_text_before_the_first_stop_string(text, stop, size):
    matcher, shown = StopMatcher(stop), ""
    for start in range(0, len(text), size):
        shown += matcher.push(text[start : start + size])
        assert text.startswith(shown)
        if matcher.matched:
            break
    else:
        shown += matcher.flush()
    found = min((text.find(s) for s in stop if s in text), default=None)
    if matcher.matched is None:
        assert shown == text and found is None
    else:
        assert matcher.matched not in shown and text.startswith(shown + matcher.matched)


def test_only_what_may_become_a_stop_string_is_held_back():
    matcher = StopMatcher(["</s>"])
    assert [matcher.push(piece) for piece in ("one <", "b> two </", "s> three")] == ["one ", "<b> two ", ""]
    assert matcher.matched == "</s>"
