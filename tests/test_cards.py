"""Tables for people: escaped, aligned, honest about what is not known."""

from __future__ import annotations

from llmlab.cards import Card, bytes_text, seconds_text


def test_names_and_values_are_escaped_in_the_page():
    page = Card("<u>", ("<i>",), (("<script>",),), ("a `<u>` note",))._repr_html_()
    assert "<u>" not in page
    assert "<i>" not in page
    assert "<script>" not in page
    assert "<code>&lt;u&gt;</code>" in page


def test_what_is_not_known_is_a_dash_and_never_a_zero():
    card = Card("", ("name", "bytes"), (("a", None), ("b", 0)))
    assert repr(card).splitlines() == ["name  bytes", "a         –", "b         0"]
    assert bytes_text(None) == seconds_text(None) == "–"


def test_columns_of_figures_are_right_aligned():
    card = Card("", ("name", "took"), (("a", "41 ms"), ("b", None), ("c", "1.20 s")))
    assert card._repr_html_().count("text-align:right") == 4
    assert repr(card).splitlines()[1:] == ["a      41 ms", "b          –", "c     1.20 s"]


def test_a_long_value_is_cut_in_the_text_only():
    card = Card("", (), (("x" * 300,),), max_width=20)
    assert repr(card) == "x" * 19 + "…"
    assert "x" * 300 in card._repr_html_()


def test_sizes_have_three_digits_and_decimal_units():
    assert [bytes_text(n) for n in (0, 999, 1000, 98_450_000, 999_600_000, 7.2e12)] == [
        "0 B", "999 B", "1.00 kB", "98.5 MB", "1.00 GB", "7.20 TB",
    ]  # fmt: skip
