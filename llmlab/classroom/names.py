"""names_of(): who is in a class, as a lecturer says it: a number, a file, or the names.

This file must not know tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from llmlab.errors import EngineError
from llmlab.language import tr

LECTURER = "lecturer"
MAX_STUDENTS, MAX_NAME = 5000, 64
_NAME = re.compile(r"[^\x00-\x1f\x7f,;\"']+")


def names_of(students: int | str | Path | Iterable[str]) -> list[str]:
    """How many, a file with a name on each line (# begins a comment), or the names themselves.

    >>> names_of(3), names_of(["ada", "bob"])
    (['student001', 'student002', 'student003'], ['ada', 'bob'])

    Raises: EngineError for a file that is not there, for a name that is no name, and for one that comes twice.
    """
    if isinstance(students, int) or (isinstance(students, str) and students.isdecimal()):
        count = int(students)
        if not 1 <= count <= MAX_STUDENTS:
            raise EngineError(tr("A class has 1 to {most} students, not {count}.", most=MAX_STUDENTS, count=count))
        # the same ones in a class that has grown
        return [f"student{number:03}" for number in range(1, count + 1)]
    given = _names_in(students) if isinstance(students, str | Path) else [("", name) for name in students]
    names: list[str] = []
    for where, name in given:
        if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name) or name == LECTURER:
            raise EngineError(
                where
                + tr(
                    "{name!r} is no name of a student: 1 to {most} characters without commas and quotes, and not "
                    "{taken!r}.",
                    name=name,
                    most=MAX_NAME,
                    taken=LECTURER,
                )
            )
        name = normalized(name)
        if name in names:
            raise EngineError(where + tr("{name!r} is there twice. Give each student a name of his own.", name=name))
        names.append(name)
    return names


def _names_in(file: str | Path) -> list[tuple[str, str]]:
    """Where each name stands, for an error, and the name."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise EngineError(
            tr("{file} is no text in UTF-8. Save it as one, with a name on each line.", file=file)
        ) from None
    except OSError as error:
        raise EngineError(
            tr("{file!r} cannot be read ({error}). It has one name on each line.", file=str(file),
               error=error.strerror)
        ) from None  # fmt: skip
    found = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1)]
    names = [(tr("{file}, line {number}: ", file=file, number=number), name) for number, name in found if name]
    if not names:
        raise EngineError(tr("{file} has no name in it. It has one name on each line.", file=file))
    return names


def normalized(name: str) -> str:
    """The one of all texts that look alike, as when one keyboard makes an é of two characters and another of one."""
    return unicodedata.normalize("NFC", name)
