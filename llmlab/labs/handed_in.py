"""What a student handed in, read as far as it can be read: a notebook or a Python file, whatever happened to it.

This file must not run anything, nor know any lab.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.labs.needed import as_python, needed, source_of, statements_of
from llmlab.labs.sentences import say

SUFFIXES = (".ipynb", ".py")
# Outputs are not looked at; beyond this the student learns that he handed in a lot of them.
LARGE_BYTES = 10_000_000
MOST_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class HandedIn:
    """`cells`: the code, as Python; `notes`: what was wrong with the file."""

    cells: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def source_for(self, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """What defines these names, as one file; and a note for each that is defined more than once."""
        statements = statements_of(self.cells)
        notes = []
        for name in names:
            cells = sorted({one.cell + 1 for one in statements if one.is_definition and name in one.binds})
            if len(cells) > 1:
                notes.append(say("defined_twice", name=name, cells=", ".join(map(str, cells))))
        return source_of(needed(statements, names)), tuple(notes)


def read(path: Path) -> HandedIn:
    """Never raises for what is in the file."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            return HandedIn(notes=(say("file_huge", file=path.name, megabytes=size // 1_000_000),))
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        return HandedIn(notes=(say("file_unreadable", file=path.name, error=error.strerror),))
    notes = [say("file_large", file=path.name, megabytes=size // 1_000_000)] if size > LARGE_BYTES else []
    cells, more = _code_of_notebook(path.name, text) if path.suffix == ".ipynb" else (_cells_of_file(text), [])
    notes += more
    if not any(cell.strip() for cell in cells):
        notes.append(say("file_no_code", file=path.name))
    return _readable(cells, notes)


def _readable(cells: Sequence[str], notes: list[str]) -> HandedIn:
    """Cells that are no Python are left out, with a note; they keep their number."""
    read_cells = []
    for number, cell in enumerate(cells, 1):
        try:
            read_cells.append(as_python(cell))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            notes.append(say("cell_no_python", number=number, error=_told(error)))
            read_cells.append("")
    return HandedIn(tuple(read_cells), tuple(notes))


def _told(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{type(error).__name__} in line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}"


def _cells_of_file(text: str) -> list[str]:
    """A py:percent file has cells; any other is one. Its magics are comments."""
    return re.split(r"^# %%.*$", text, flags=re.MULTILINE)


def _code_of_notebook(file: str, text: str) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = list(_cells_in_pieces(text))
        if not found:
            return [], [say("file_no_notebook", file=file, error=str(error))]
        return _code(found), [say("file_damaged", file=file, count=len(found), error=str(error))]
    if not isinstance(whole, dict) or not isinstance(cells := _cells_of(whole), list):
        return [], [say("file_no_notebook", file=file, error="it has no list of cells")]
    if kernel := _other_kernel(whole):
        notes.append(say("file_kernel", file=file, kernel=kernel))
    return _code(cells), notes


def _cells_of(notebook: Mapping[str, Any]) -> Any:
    """Of a notebook of version 4, or of version 3, which has its cells in worksheets."""
    if "cells" in notebook:
        return notebook["cells"]
    sheets = notebook.get("worksheets")
    if not isinstance(sheets, list):
        return None
    return [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or ()]


def _other_kernel(notebook: Mapping[str, Any]) -> str:
    """The name of a kernel that does not run Python."""
    metadata = notebook.get("metadata")
    spec = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    if not isinstance(spec, dict):
        return ""
    language = str(spec.get("language") or "python")
    name = str(spec.get("name") or "")
    return "" if language.lower() in ("python", "ipython") else name or language


def _code(cells: Sequence[Any]) -> list[str]:
    code = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input", ""))
            code.append("".join(map(str, source)) if isinstance(source, list) else str(source))
    return code


def _cells_in_pieces(text: str) -> Iterator[dict[str, Any]]:
    """The cells of a notebook that was cut off or damaged, as far as they can be told apart."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r'\{\s*"(?:cell_type|attachments|execution_count|id|metadata)"', text):
        try:
            cell, _ = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if "cell_type" in cell:
            yield cell
