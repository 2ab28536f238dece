"""Which prompts are asked: one, a list, a column of a table, a JSON Lines file. Broken lines are told by their number.

This file must not know engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmlab.engines.prompts import PromptLike
from llmlab.errors import RequestError, unknown

MAX_SHOWN = 5  # problems of a file that a message lists


@dataclass(frozen=True)
class PromptSet:
    """The prompts, and what of their source could not be used."""

    prompts: tuple[PromptLike, ...]
    # (number of the line or row, counted from 1; what is wrong with it)
    problems: tuple[tuple[int, str], ...] = ()
    source: str = "the list"
    unit: str = "row"

    @property
    def note(self) -> str:
        """One sentence about the lines that were left out; "" when there are none."""
        if not self.problems:
            return ""
        listed = "; ".join(f"{self.unit} {number}: {what}" for number, what in self.problems[:MAX_SHOWN])
        more = len(self.problems) - MAX_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        count = f"1 {self.unit} was" if len(self.problems) == 1 else f"{len(self.problems)} {self.unit}s were"
        return f"{count} left out of {self.source}: {listed}{rest}."


def prompt_set(prompts: object, *, column: str = "prompt", limit: int | None = None) -> PromptSet:
    """The prompts behind whatever somebody has in hand.

    `prompts`: a text, a conversation or token ids (one prompt); a list of these; a DataFrame (its column `column`); a
    Series; a JSON Lines file, as a Path or a text that ends in .jsonl: one text a line, or one object with `column` or
    "messages". `limit`: at most so many, the first ones.

    >>> prompt_set(["one", "two"]).prompts, prompt_set("one").prompts
    (('one', 'two'), ('one',))

    Raises: RequestError when there is no prompt, no such file or no such column.
    """
    if limit is not None and limit < 1:
        raise RequestError(f"limit is {limit}; it must be 1 or more, or None for all prompts.")
    if isinstance(prompts, Path) or (isinstance(prompts, str) and _is_file_name(prompts)):
        found = _read(Path(prompts).expanduser(), column, limit)
    elif _is_one(prompts):
        found = PromptSet((prompts,))  # type: ignore[arg-type]  # _is_one says so
    else:
        found = _sorted_out(islice(_members(prompts, column), limit))
    if not found.prompts:
        why = f" {found.note}" if found.note else ""
        raise RequestError(f"There is no prompt to compare answers to: the set is empty.{why} Give it at least one.")
    return found


def text_of(prompt: PromptLike) -> str:
    """What a person reads of a prompt: its text, the last message of a conversation, or how many token ids it has."""
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt", "")
    if isinstance(prompt, str):
        return prompt
    items = list(prompt)
    if items and isinstance(items[-1], Mapping):
        return str(items[-1].get("content", ""))
    return f"{len(items)} token ids"


def _is_file_name(text: str) -> bool:
    return text.endswith(".jsonl") and "\n" not in text


def _is_one(prompts: object) -> bool:
    """A text, a request as a dict, a conversation or token ids: no list of prompts."""
    if isinstance(prompts, str | Mapping):
        return True
    if not isinstance(prompts, list | tuple) or not prompts:
        return False
    is_conversation = all(isinstance(item, Mapping) and "role" in item for item in prompts)
    return is_conversation or all(hasattr(item, "__index__") for item in prompts)


def _members(prompts: object, column: str) -> Iterator[Any]:
    columns = getattr(prompts, "columns", None)
    if columns is not None:
        names = [str(name) for name in columns]
        if column not in names:
            raise RequestError(unknown("column", column, names) + ' Name the one with the prompts: column="...".')
        prompts = prompts[column]  # type: ignore[index]  # a DataFrame
    if not isinstance(prompts, Iterable):
        raise RequestError(f"Prompts are a text, a list, a DataFrame or a .jsonl file; got {type(prompts).__name__}.")
    yield from prompts


def _sorted_out(members: Iterable[Any]) -> PromptSet:
    """The members of a list that are prompts; an empty field of a table is none."""
    found: list[PromptLike] = []
    problems: list[tuple[int, str]] = []
    for number, member in enumerate(members, 1):
        if _is_one(member) and member:
            found.append(member)
        else:
            problems.append((number, f"no prompt, but {str(member)[:40]!r}"))
    return PromptSet(tuple(found), tuple(problems))


def _read(path: Path, column: str, limit: int | None) -> PromptSet:
    """Line by line: a file may be larger than what is wanted of it."""
    found: list[PromptLike] = []
    problems: list[tuple[int, str]] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    found.append(_prompt_of(line, column))
                except ValueError as error:
                    problems.append((number, str(error)))
                if len(found) == limit:
                    break
    except OSError as error:
        raise RequestError(f"Cannot read {path}: {error.strerror}. Give the path of a .jsonl file.") from error
    return PromptSet(tuple(found), tuple(problems), path.name, "line")


def _prompt_of(line: bytes, column: str) -> PromptLike:
    """Raises: ValueError with what is wrong."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError:
        raise ValueError("no UTF-8") from None
    if isinstance(value, dict):
        name = column if column in value else "messages"
        if name not in value:
            raise ValueError(f"no {column!r}; it has {', '.join(map(repr, value)) or 'nothing'}")
        value = value[name]
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and _is_one(value):
        return value
    raise ValueError(f"no text, but {str(value)[:40]!r}")
