"""The submissions in a folder: each file or folder in it is one student, whatever it is.

This file must not know what is in a submission.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab.errors import LlmlabError
from llmlab.labs.description import Lab
from llmlab.labs.handed_in import SUFFIXES
from llmlab.labs.record import SUFFIX as RECORD_SUFFIX
from llmlab.labs.sentences import say

_LAB = re.compile(r"(?<![a-z])lab\d\d(?!\d)")
_STARTED = re.compile(rb"%llm lab start (lab\d\d)")
_LOOKED_AT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Handin:
    """`file`: what is graded; None when nothing could be. `notes`: why, and what else there was."""

    student: str
    file: Path | None
    record: Path | None = None
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Of all that a score depends on here."""
        found = hashlib.sha256()
        for path in (self.file, self.record):
            try:
                found.update(path.read_bytes() if path is not None else b"none")
            except OSError:
                found.update(b"unreadable")
        return found.hexdigest()


def submissions_in(folder: Path, lab: Lab) -> list[Handin]:
    """One for each entry of the folder, by name; hidden entries are passed over.

    Raises: LlmlabError when there is no such folder, or nothing in it.
    """
    entries = _entries(folder)
    names = Counter(_student(entry) for entry in entries)
    found = []
    for entry in entries:
        student = _student(entry) if names[_student(entry)] == 1 else entry.name
        found.append(_of_folder(student, entry, lab) if entry.is_dir() else _of_file(student, entry, lab))
    return found


def lab_meant(folder: Path, known: Sequence[str]) -> str:
    """The one lab that the files in a folder name, in their own names or in `%llm lab start`.

    Raises: LlmlabError when they name none, or several.
    """
    named = Counter(lab for entry in _entries(folder) for lab in _labs_of(entry) if lab in known)
    if len(named) != 1:
        found = ", ".join(f"{lab}: {count}" for lab, count in sorted(named.items())) or "none"
        raise LlmlabError(f"{folder} does not say which lab it is for ({found}). Name it: --lab lab03.")
    return next(iter(named))


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LlmlabError(f"There is no folder {folder}: name the one that holds what your students handed in.")
    found = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))
    entries = [path for path in found if not path.name.endswith(RECORD_SUFFIX)]
    if not entries:
        raise LlmlabError(f"{folder} is empty: it should hold a notebook, or a folder with one, for each student.")
    return entries


def _student(entry: Path) -> str:
    return os.fsencode(entry.name if entry.is_dir() else entry.stem).decode(errors="replace")


def _of_file(student: str, file: Path, lab: Lab) -> Handin:
    if file.suffix not in SUFFIXES or not file.is_file():
        return Handin(student, None, notes=(say("file_other", file=file.name),))
    return Handin(student, file, _existing(file.with_name(f"{file.stem}{RECORD_SUFFIX}")))


def _of_folder(student: str, folder: Path, lab: Lab) -> Handin:
    """The lab's own notebook if there is one, else the only one, else the first that names the lab."""
    files = sorted(path for path in _below(folder) if path.suffix in SUFFIXES)
    record = next((path for path in _below(folder) if path.name == f"{lab.name}{RECORD_SUFFIX}"), None)
    own = [path for path in files if path.name == f"{lab.name}.ipynb"]
    named = [path for path in files if lab.lab_id in _labs_of(path)]
    notebooks = [path for path in files if path.suffix == ".ipynb"]
    chosen = next(iter(own or named or notebooks or files), None)
    if chosen is None:
        return Handin(student, None, record, (say("file_none", folder=folder.name),))
    rivals = next(group for group in (own, named, notebooks, files) if group)
    notes = (say("file_chosen", count=len(rivals), file=chosen.name),) if len(rivals) > 1 else ()
    return Handin(student, chosen, record, notes)


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts):
            yield path


def _labs_of(path: Path) -> set[str]:
    if path.is_dir():
        return {lab for file in _below(path) if file.suffix in SUFFIXES for lab in _labs_of(file)}
    if named := set(_LAB.findall(path.stem.lower())):
        return named
    try:
        with path.open("rb") as file:
            return {lab.decode() for lab in _STARTED.findall(file.read(_LOOKED_AT_BYTES))}
    except OSError:
        return set()


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
