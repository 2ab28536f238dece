"""{name} in a prompt: replaced where the notebook has that name, and nothing else is touched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from llmlab.magics.interpolate import interpolate


@dataclass
class User:
    name: str = "Ada"


NAMES = {
    "n": 3,
    "i": 1,
    "pi": 3.14159,
    "day": date(2026, 1, 31),
    "user": User(),
    "xs": ["a", "b", "c"],
    "d": {"key": "{n}", "two words": 2},
    "grid": {(0, 1): "here"},
}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("{n} of {n}", "3 of 3"),
        ("{user.name}", "Ada"),
        ("{xs[0]}{xs[-1]}{xs[i]}", "acb"),
        ("{xs[1:]}", "['b', 'c']"),
        ("{d['two words']}", "2"),
        ("{grid[0, 1]}", "here"),
        ("{pi:.2f} {n:>3} {n:03d} {day:%d.%m.%y}", "3.14   3 003 31.01.26"),
        ("{user.name!r}", "'Ada'"),
        ("{{n}}", "{n}"),
        ("{{user.name}} and {n}", "{user.name} and 3"),
        ("{d['key']}", "{n}"),
    ],
)
def test_a_field_is_replaced_by_its_value_once(text: str, sent: str):
    assert interpolate(text, NAMES) == sent


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": [1, {"c": 2}]}}',
        "{unknown} {unknown.name} {unknown[0]:.2f} {{unknown}}",
        "{k: v for k, v in d.items()}",
        "{ n }",
        "{n: 1, i: 2}",
        "interface Point { x: number; }; const f = ({n: string}) => {}",
        r"\frac{1}{2} \sqrt{x^{2}} \mathbb{R}",
        "{} {{}} {0} {1:.2f} {n+1} {f(n)} }{ {",
        "void main() { return; };",
        "{list} {print} {len}",
    ],
)
def test_every_other_brace_stays_as_it_is(text: str):
    assert interpolate(text, NAMES) == text


@given(st.text(alphabet="{}nxd.[]:'\" 0a", max_size=40))
def test_any_text_passes_untouched_through_an_empty_notebook(text: str):
    assert interpolate(text, {}) == text


@given(st.text(max_size=30))
def test_a_value_is_never_expanded_again(value: str):
    assert interpolate("<{n}>", {"n": value, "value": 1}) == f"<{value}>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{user.nmae}", "AttributeError"),
        ("{xs[9]}", "IndexError"),
        ("{d[nothing]}", "NameError"),
        ("{xs:.2f}", "TypeError"),
    ],
)
def test_a_field_that_cannot_be_computed_is_one_line_that_says_how_to_send_it(text: str, reason: str):
    with pytest.raises(UsageError) as error:
        interpolate(text, NAMES)
    assert reason in str(error.value)
    assert "{" + text + "}" in str(error.value)
    assert "\n" not in str(error.value)


def test_strict_names_the_unknown_and_its_neighbour():
    with pytest.raises(UsageError, match=r"no variable 'usr' for \{usr\.name\}\. Did you mean user\?"):
        interpolate("{usr.name}", NAMES, strict=True)


def test_strict_leaves_json_alone_and_knows_literal_braces():
    assert interpolate('{"a": 1} {{x}} {n}', NAMES, strict=True) == '{"a": 1} {x} 3'
