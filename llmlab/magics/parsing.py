"""From a typed line to values: words, flags, one-line errors. The flags themselves are in grammar.py.

This file must not know any verb, engine or notebook.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.options import Argument, Option, Verb

# What a prompt line may not hold unless it is a flag of ours: -x, --word, --word=value. "-5", "->" and "-la" are text.
_FLAG = re.compile(r"(-[A-Za-z]|--[A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_ATTACHED = re.compile(r"(-[A-Za-z])(\d[\d.]*)")
_WORD = re.compile(r"""(?:--[\w-]+=)?(?:"(?:\\.|[^"\\])*"|'[^']*')(?=\s|$)|\S+""")


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: int
    end: int
    # "..." or '...' around all of it, or around the value of --flag="..."
    quoted: bool


def words(line: str) -> Iterator[Word]:
    """Words with their place. Quotes hold a word together only from its start to its end: it's, "half are plain text.

    >>> [word.text for word in words('''What's -s "be brief" up''')]
    ["What's", '-s', 'be brief', 'up']
    """
    for match in _WORD.finditer(line):
        flag, quote, rest = re.fullmatch(r"""(--[\w-]+=)?(["']?)(.*)""", match[0], re.DOTALL).groups()  # type: ignore[union-attr]
        quoted = bool(quote) and len(rest) >= 1 and rest.endswith(quote)
        text = rest[:-1] if quoted else quote + rest
        if quoted and quote == '"':
            text = re.sub(r'\\(["\\])', r"\1", text)
        yield Word((flag or "") + text, match.start(), match.end(), quoted)


def parse(verb: Verb, line: str, expand: Callable[[str], str] = str) -> SimpleNamespace:
    """The values of a line of `verb`: one attribute each, None where nothing was given, and `text` of a free_text verb.

    `expand` replaces {names} in every value, after the line was cut into words: no value can become a flag.

    Raises: UsageError, one line with the nearest flag.
    """
    values: dict[str, Any] = {option.dest: None if option.metavar else False for option in verb.options}
    plain: list[Word] = []
    todo = list(words(line))
    while todo:
        word = todo.pop(0)
        if word.text == "--" and not word.quoted:
            plain += [Word(line[word.end :].strip(), word.end, len(line), False)] if verb.free_text else todo
            break
        flag = _flag(verb, word.text) if line.startswith("-", word.start) else None
        if flag is None:
            plain.append(word)
        else:
            _take(verb, *flag, todo, values, expand)
    if verb.free_text:
        values["text"] = _text(line, plain)
    else:
        values |= _arguments(verb, line, [expand(word.text) for word in plain])
    return SimpleNamespace(**values)


def _flag(verb: Verb, text: str) -> tuple[Option, str | None] | None:
    """The option that a word names, and the value attached to it (--name=value, -n64)."""
    match = _ATTACHED.fullmatch(text)
    if match and (option := verb.option(match[1])) and option.metavar:
        return option, match[2]
    match = _FLAG.fullmatch(text)
    if match is None:
        if verb.free_text or not text.startswith("-") or re.fullmatch(r"-[\d.].*|-", text):
            return None
        raise unknown_flag(verb, text)
    option = verb.option(match[1])
    if option is None:
        raise unknown_flag(verb, match[1])
    return option, match[2]


def _take(
    verb: Verb,
    option: Option,
    attached: str | None,
    todo: list[Word],
    values: dict[str, Any],
    expand: Callable[[str], str],
) -> None:
    """Store the value of an option, from the words that follow it."""
    if not option.metavar:
        if attached is not None:
            raise UsageError(
                tr("{flag} takes no value, and got {got!r}. Type {flag} alone.", flag=option.names[0], got=attached)
            )
        values[option.dest] = True
        return
    if attached is not None:
        taken = [attached]
    elif option.pairs:
        taken = []
        while todo and "=" in todo[0].text and not todo[0].text.startswith("-"):
            taken.append(todo.pop(0).text)
    elif option.many:
        taken = []
        while todo and (todo[0].quoted or not todo[0].text.startswith("-")):
            taken.append(todo.pop(0).text)
    else:
        has_value = todo and (todo[0].quoted or (todo[0].text != "--" and verb.option(todo[0].text) is None))
        taken = [todo.pop(0).text] if has_value else []
    if not taken and option.may_stand_alone:
        values[option.dest] = True
        return
    if not taken:
        needs = tr(
            "{flag} needs a value: {usage} ({help}).", flag=option.names[0], usage=option.usage, help=tr(option.help)
        )
        raise UsageError(needs + _as_text(verb))
    got = [_convert(verb, option, expand(text)) for text in taken]
    if option.pairs:
        values[option.dest] = {**(values[option.dest] or {}), **dict(got)}
    elif option.repeat or option.many:
        values[option.dest] = [*(values[option.dest] or []), *got]
    else:
        values[option.dest] = got[0]


def _convert(verb: Verb, option: Option | Argument, text: str) -> Any:
    name = option.names[0] if isinstance(option, Option) else option.name
    if option.choices and text not in option.choices:
        known = ", ".join(option.choices)
        raise UsageError(_takes(name, known, text) + did_you_mean(text, option.choices))
    try:
        return option.convert(text)
    except ValueError as error:
        raise UsageError(_takes(name, str(error), text) + _as_text(verb)) from None


def _takes(name: str, what: str, got: str) -> str:
    return tr("{name} takes {what}, and got {got!r}.", name=name, what=what, got=got)


def _arguments(verb: Verb, line: str, given: list[str]) -> dict[str, Any]:
    missing = [argument for argument in verb.arguments if argument.required][len(given) :]
    if missing:
        raise UsageError(
            tr(
                "{line} needs {name}: {help}. `{more}` shows more.",
                line=verb.title,
                name=missing[0].name,
                help=tr(missing[0].help),
                more=help_line(verb),
            )
        )
    if len(given) > len(verb.arguments):
        extra = given[len(verb.arguments)]
        hint = to_send(f"{verb.name} {line}") if verb.form != "cell" else ""
        raise UsageError(tr("{line}: {word!r} is one word too many.", line=verb.title, word=extra) + hint)
    found = {argument.name.lower(): None for argument in verb.arguments}
    return found | {a.name.lower(): _convert(verb, a, text) for a, text in zip(verb.arguments, given, strict=False)}


def _text(line: str, plain: list[Word]) -> str:
    """What was typed between the flags. Quotes around all of it are not part of it."""
    if len(plain) == 1 and plain[0].quoted:
        return plain[0].text
    runs: list[list[int]] = []
    for word in plain:
        if runs and not line[runs[-1][1] : word.start].strip():
            runs[-1][1] = word.end
        else:
            runs.append([word.start, word.end])
    return " ".join(line[start:end].strip() for start, end in runs)


def unknown_flag(verb: Verb, flag: str) -> UsageError:
    known = [name for option in verb.options for name in option.names]
    shown = did_you_mean(flag, known) or tr(" `{line}` lists its flags.", line=help_line(verb))
    told = tr("{line} has no flag {flag!r}.", line=verb.title.split(" [")[0], flag=flag)
    return UsageError(f"{told}{shown}{_as_text(verb)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, or nothing.

    >>> did_you_mean("--max-token", ["--max-tokens", "-n"])
    ' Did you mean --max-tokens?'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return tr(" Did you mean {name}?", name=near[0]) if near else ""


def to_send(line: str) -> str:
    """How a line that starts like a verb becomes a prompt."""
    return tr(" To send the line as a prompt: `%llm -- {line}`", line=line)


def help_line(verb: Verb) -> str:
    return f"%llm help {verb.name or 'prompt'}"


def _as_text(verb: Verb) -> str:
    return tr(" What follows `--` is sent as it is: `%llm -- your prompt`.") if verb.free_text else ""
