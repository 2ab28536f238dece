"""Register: who is in a class, and whose token a token is. It outlives the server: a restart changes no token.

    FOLDER/register.json     names, and the SHA-256 of each token: nobody gets in with it
    FOLDER/tokens.csv        name,token: what is handed out. Only tokens that were made since it was last deleted
    FOLDER/lecturer.token    the lecturer's own

All of them are readable by their owner alone. register.json is read again when it has changed, so `llmlab class
--new-token ada` works on a class that runs. This file must not know HTTP or engines.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from llmlab.errors import EngineError, unknown
from llmlab.language import tr

FOLDER = "class"  # where it is, if nobody says so
LECTURER = "lecturer"
SCHEMA = "llmlab.class/1"
MAX_STUDENTS, MAX_NAME = 5000, 64
_NAME = re.compile(r"[^\x00-\x1f\x7f,;\"']+")


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    is_lecturer: bool = False


class Register:
    """The people of one class. `folder` is made where it is missing, with a token for the lecturer.

    Raises: EngineError when the folder cannot be used.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file, self._csv = self.folder / "register.json", self.folder / "tokens.csv"
        self._own = self.folder / f"{LECTURER}.token"
        self._hashes: dict[str, str] = {}
        self._read_at: tuple[int, int] | None = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.folder / ".gitignore").exists():
                _write(self.folder / ".gitignore", "*\n")  # tokens go into no repository
            self._refresh()
            if LECTURER not in self._hashes or not self._own.exists():
                token = self._make([LECTURER])[LECTURER]
                _write(self._own, token + "\n")
            self.lecturer_token = self._own.read_text().strip()
        except OSError as error:
            raise EngineError(
                tr(
                    "The class cannot be kept in {folder} ({error}). Name another: --folder DIR.",
                    folder=self.folder,
                    error=error,
                )
            ) from None

    @property
    def names(self) -> list[str]:
        """The students, by name."""
        self._refresh()
        return sorted(name for name in self._hashes if name != LECTURER)

    def add(self, names: Iterable[str]) -> list[str]:
        """Who is not there yet gets a token, in tokens.csv; the others keep theirs. Returns the new ones."""
        self._refresh()
        new = [name for name in names if name not in self._hashes]
        if new:
            self._hand_out(self._make(new))
        return new

    def new_token(self, name: str) -> str:
        """For who has lost one; the old one is worth nothing from now on. Raises: EngineError for a stranger."""
        self._check(name)
        made = self._make([name])
        if name == LECTURER:
            self.lecturer_token = made[name]
            _write(self._own, made[name] + "\n")
        else:
            self._hand_out(made)
        return made[name]

    def remove(self, name: str) -> None:
        """Raises: EngineError for a stranger."""
        self._check(name)
        if name == LECTURER:
            raise EngineError(tr("A class has a lecturer. For another token: --new-token {name}.", name=LECTURER))
        del self._hashes[name]
        self._save()

    def person(self, token: bytes) -> Person | None:
        """Whose token it is; None: nobody's. Looks at all of them, and takes equally long for each."""
        with contextlib.suppress(EngineError):  # somebody broke the file: who was in stays in
            self._refresh()
        given, found = _hash(token), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, given):
                found = name
        return Person(found, is_lecturer=found == LECTURER) if found is not None else None

    # ---- files

    def _check(self, name: str) -> None:
        self._refresh()
        if name not in self._hashes:
            raise EngineError(unknown("student", name, self._hashes))

    def _make(self, names: Iterable[str]) -> dict[str, str]:
        made = {name: secrets.token_urlsafe(24) for name in names}
        self._hashes |= {name: _hash(token.encode()) for name, token in made.items()}
        self._save()
        return made

    def _hand_out(self, tokens: dict[str, str]) -> None:
        rows = {}
        if self._csv.exists():
            with self._csv.open(newline="", encoding="utf-8") as file:
                rows = {row["name"]: row["token"] for row in csv.DictReader(file)}
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows([("name", "token"), *(rows | tokens).items()])
        _write(self._csv, text.getvalue())

    def _refresh(self) -> None:
        """Read it again where somebody else has written it."""
        if not self._file.exists():
            return
        status = self._file.stat()
        if self._read_at == (status.st_ino, status.st_mtime_ns):
            return
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(content["schema"])
            self._hashes = {str(name): str(value) for name, value in content["tokens"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                tr(
                    "{file} is no register of a class ({error}). Take it from a backup, or begin a new class: "
                    "--folder DIR.",
                    file=self._file,
                    error=error,
                )
            ) from None
        self._read_at = (status.st_ino, status.st_mtime_ns)

    def _save(self) -> None:
        _write(self._file, json.dumps({"schema": SCHEMA, "tokens": self._hashes}, indent=1, ensure_ascii=False) + "\n")
        status = self._file.stat()
        self._read_at = (status.st_ino, status.st_mtime_ns)


def names_of(students: int | str | Path | Iterable[str]) -> list[str]:
    """How many, a file with a name on each line (# begins a comment), or the names themselves.

    >>> names_of(3), names_of(["ada", "bob"])
    (['student1', 'student2', 'student3'], ['ada', 'bob'])

    Raises: EngineError for a file that is not there, for a name that is no name, and for one that comes twice.
    """
    if isinstance(students, int) or (isinstance(students, str) and students.isdecimal()):
        count = int(students)
        if not 1 <= count <= MAX_STUDENTS:
            raise EngineError(tr("A class has 1 to {most} students, not {count}.", most=MAX_STUDENTS, count=count))
        return [f"student{number:0{len(str(count))}}" for number in range(1, count + 1)]
    if isinstance(students, str | Path):
        try:
            lines = Path(students).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(
                tr("{file} cannot be read ({error}). It has one name on each line.", file=students, error=error)
            ) from None
        students = [name for line in lines if (name := line.partition("#")[0].strip())]
    names = list(students)
    for name in names:
        if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name) or name == LECTURER:
            raise EngineError(
                tr(
                    "{name!r} is no name of a student: 1 to {most} characters without commas and quotes, and not "
                    "{taken!r}.",
                    name=name,
                    most=MAX_NAME,
                    taken=LECTURER,
                )
            )
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise EngineError(tr("{name!r} is there twice. Give each student a name of his own.", name=twice))
    return names


def _hash(token: bytes) -> str:
    """Tokens are random and long: there is nothing to guess, so a plain hash will do."""
    return hashlib.sha256(token).hexdigest()


def _write(file: Path, text: str) -> None:
    """All of it or nothing, for its owner alone."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
