"""What a verb, a flag and its value are: the words in which grammar.py is written.

This file must not know any verb.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmlab.language import tr


@dataclass(frozen=True, slots=True)
class Option:
    """A flag. Without a metavar it is a switch, with one in brackets ("[ADDRESS]") it may be one; `live` names what Tab
    offers as its value.
    """

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    convert: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    live: str = ""
    # May be given again; the values make a list.
    repeat: bool = False
    # Takes all the words key=value that follow it; they make a dict.
    pairs: bool = False
    # Takes all the words up to the next flag; they make a list.
    many: bool = False

    @property
    def dest(self) -> str:
        """The attribute its value is stored in: `max_tokens` of --max-tokens."""
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def may_stand_alone(self) -> bool:
        """Without a value it is True."""
        return self.metavar.startswith("[")

    @property
    def usage(self) -> str:
        """`-n MAX_TOKENS`"""
        return " ".join([self.names[0], self.metavar, *(["..."] if self.pairs or self.many else [])])


@dataclass(frozen=True, slots=True)
class Argument:
    """A word without a flag."""

    name: str
    help: str
    required: bool = True
    convert: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    live: str = ""


@dataclass(frozen=True, slots=True)
class Verb:
    """What can stand after %llm, and where its action is: "module:function" below llmlab.magics.verbs."""

    name: str
    help: str
    action: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    # The words that are no flags are one text, kept as it was typed.
    free_text: bool = False
    # Where it may be typed: "line" (%llm), "cell" (%%llm) or "both".
    form: str = "line"
    title: str = ""

    def option(self, name: str) -> Option | None:
        return next((option for option in self.options if name in option.names), None)


# ---- conversions: the message of a ValueError says what the flag takes


def whole(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError(tr("a whole number")) from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(tr("a number")) from None


def numbers(text: str) -> list[float]:
    """Numbers with commas between them.

    >>> numbers("1,2,4.5")
    [1.0, 2.0, 4.5]
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(tr("numbers with commas between them")) from None


def prices(text: str) -> float | dict[str, float]:
    """One number, or NAME=number with commas between them.

    >>> prices("0.9"), prices("a=0.9,b=0.1")
    (0.9, {'a': 0.9, 'b': 0.1})
    """
    from llmlab.bench.slo import pairs_of  # the package brings engines along

    try:
        return {name: float(value) for name, value in pairs_of(text)} if "=" in text else float(text)
    except ValueError:
        raise ValueError(tr("a number, or NAME=number with commas between them")) from None


def variable(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(tr("the name of a variable"))
    return text


def escapes(text: str) -> str:
    r"""Text in which \n and \t stand for a line break and a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def literal(text: str) -> Any:
    """A Python literal when it is one, also as JSON writes it, else the text.

    >>> literal("2,5"), literal("false"), literal("no")
    ((2, 5), False, 'no')
    """
    from ast import literal_eval

    try:
        return literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def pair(text: str) -> tuple[str, Any]:
    """key=value; the value as a Python literal when it is one.

    >>> pair("flash_attn=False"), pair("mode=fast")
    (('flash_attn', False), ('mode', 'fast'))
    """
    key, equals, value = text.partition("=")
    if not (equals and key.isidentifier()):
        raise ValueError(tr("key=value"))
    return key, literal(value)
