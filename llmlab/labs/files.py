"""Which files of a lab's folder are for whom. This file must not know what is in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from llmlab.labs.master import without_solutions
from llmlab.labs.public_checks import public_checks

# What its author writes, and what is made from that; anything else in the folder is used by the checks.
AUTHORS_FILES = frozenset({"lab.py", "starter.py", "reference.py", "checks.py", "README.md"})


def used_by_checks(folder: Path) -> Iterator[Path]:
    """Files beside checks.py that it opens."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in AUTHORS_FILES and "__pycache__" not in path.parts:
            yield path


def for_students(folder: Path) -> dict[str, bytes]:
    """Name -> content of what `%llm lab` needs in an installation for students: no solution, no hidden check."""
    files = {
        "lab.py": without_solutions((folder / "lab.py").read_text(encoding="utf-8")).encode(),
        "checks.py": public_checks((folder / "checks.py").read_text(encoding="utf-8")).encode(),
    }
    return files | {path.relative_to(folder).as_posix(): path.read_bytes() for path in used_by_checks(folder)}


def packed_checks(folder: Path) -> bytes:
    """All checks of a lab, the hidden ones too, as a zip: the same bytes for the same files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [folder / "checks.py", *used_by_checks(folder)]:
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()
