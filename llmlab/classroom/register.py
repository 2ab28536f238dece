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
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from llmlab.classroom.names import LECTURER, normalized
from llmlab.engines import access
from llmlab.errors import EngineError, unknown
from llmlab.language import tr

FOLDER = "class"  # where it is, if nobody says so
SCHEMA = "llmlab.class/1"
_COLUMNS = ("name", "token")


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
        with self._told():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.folder / ".gitignore").exists():
                _write(self.folder / ".gitignore", "*\n")  # tokens go into no repository
            self._refresh()
            if LECTURER not in self._hashes or not self._own.exists():
                self._renew_own()
            self.lecturer_token = self._own.read_text().strip()

    @property
    def names(self) -> list[str]:
        """The students, by name."""
        self._look()
        return sorted(name for name in self._hashes if name != LECTURER)

    def add(self, names: Iterable[str]) -> list[str]:
        """Who is not there yet gets a token, in tokens.csv; the others keep theirs. Returns the new ones."""
        with self._told():
            self._refresh()
            if new := [name for name in names if name not in self._hashes]:
                self._hand_out(new)
        return new

    def new_token(self, name: str) -> str:
        """For who has lost one; the old one is worth nothing from now on. Raises: EngineError for a stranger."""
        with self._told():
            name = self._known(name)
            if name != LECTURER:
                return self._hand_out([name])[name]
            self.lecturer_token = self._renew_own()
        return self.lecturer_token

    def remove(self, name: str) -> None:
        """Raises: EngineError for a stranger."""
        with self._told():
            name = self._known(name)
            if name == LECTURER:
                raise EngineError(tr("A class has a lecturer. For another token: --new-token {name}.", name=LECTURER))
            self._save({other: value for other, value in self._hashes.items() if other != name})

    def person(self, token: bytes) -> Person | None:
        """Whose token it is; None: nobody's. Looks at all of them, and takes equally long for each."""
        self._look()
        given, found = _hash(token), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, given):
                found = name
        return Person(found, is_lecturer=found == LECTURER) if found is not None else None

    # ---- files

    def _known(self, name: str) -> str:
        """As it is kept. Raises: EngineError for a stranger."""
        self._refresh()
        if (kept := normalized(name)) not in self._hashes:
            raise EngineError(unknown("student", name, self._hashes))
        return kept

    def _renew_own(self) -> str:
        token = access.new_token()
        _write(self._own, token + "\n")
        self._keep({LECTURER: token})
        return token

    def _hand_out(self, names: list[str]) -> dict[str, str]:
        """New tokens, in tokens.csv beside those that are there. Written first: no token holds that nobody has."""
        tokens = {name: access.new_token() for name in names}
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *(self._rows() | tokens).items()])
        _write(self._csv, text.getvalue())
        self._keep(tokens)
        return tokens

    def _keep(self, tokens: dict[str, str]) -> None:
        self._save(self._hashes | {name: _hash(token.encode()) for name, token in tokens.items()})

    def _rows(self) -> dict[str, str]:
        """What is in tokens.csv. Raises: EngineError where somebody else has written it."""
        try:
            # a spreadsheet begins it with a BOM
            text = self._csv.read_text(encoding="utf-8-sig") if self._csv.exists() else ""
            if not text.strip():
                return {}
            first, *rest = csv.reader(text.splitlines())
            if tuple(first) != _COLUMNS:
                raise ValueError(first)
            return dict(rest)
        except ValueError:
            raise EngineError(
                tr("{file} does not have a name, a comma and a token on each line any more. Move it away, and type "
                   "the same again: a new one is made.", file=self._csv)
            ) from None  # fmt: skip

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raises: EngineError for an OSError inside."""
        try:
            yield
        except OSError as error:
            raise EngineError(
                tr(
                    "The class cannot be kept in {folder} ({error}). Name another: --folder DIR.",
                    folder=self.folder,
                    error=error,
                )
            ) from None

    def _look(self) -> None:
        """While the class runs: somebody broke the file, or took it away: who was in stays in."""
        with contextlib.suppress(EngineError, OSError):
            self._refresh()

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

    def _save(self, hashes: dict[str, str]) -> None:
        _write(self._file, json.dumps({"schema": SCHEMA, "tokens": hashes}, indent=1, ensure_ascii=False) + "\n")
        self._hashes = hashes
        status = self._file.stat()
        self._read_at = (status.st_ino, status.st_mtime_ns)


def _hash(token: bytes) -> str:
    """Tokens are random and long: there is nothing to guess, so a plain hash will do."""
    return hashlib.sha256(token).hexdigest()


def _write(file: Path, text: str) -> None:
    """All of it or nothing, for the owner of the folder alone."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            if os.geteuid() == 0:  # sudo changes the class of a service, which must be able to read it
                owner = file.parent.stat()
                os.fchown(out.fileno(), owner.st_uid, owner.st_gid)
            out.write(text)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
