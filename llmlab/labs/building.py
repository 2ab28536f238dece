"""Labs as files: what a lecturer hands out, what other graders read, and what is made from a master.

    OUT/student/LAB.ipynb                     for students: no solution, no hidden check
    OUT/otter/LAB/LAB.ipynb                   for `otter assign`; LAB.checks.zip beside it has the hidden checks
    OUT/nbgrader/source/LAB/LAB.ipynb         for `nbgrader generate_assignment LAB`, typed in OUT/nbgrader

This file must not know how a submission is graded.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from llmlab.errors import LlmlabError
from llmlab.labs import master
from llmlab.labs.description import Lab
from llmlab.labs.exported import has_hidden_checks
from llmlab.labs.files import packed_checks
from llmlab.labs.finding import all_labs, find_lab
from llmlab.labs.nbgrader_source import CONFIGURATION, nbgrader_source
from llmlab.labs.otter_source import hidden_file, otter_source
from llmlab.labs.sentences import say


def build(folder: Path, lab_ids: Sequence[str] = ()) -> list[Path]:
    """Write all three forms of these labs, or of all; the files, over those of an earlier call.

    Raises: LlmlabError for an unknown lab, and in an installation without solutions.
    """
    made: dict[str, bytes] = {}
    for lab in _masters(lab_ids):
        text = _master(lab)
        made |= {
            f"student/{lab.name}.ipynb": master.notebook(master.without_solutions(text)).encode(),
            f"otter/{lab.name}/{lab.name}.ipynb": otter_source(lab, text).encode(),
            f"otter/{lab.name}/{hidden_file(lab)}": packed_checks(lab.folder),
            f"nbgrader/source/{lab.name}/{lab.name}.ipynb": nbgrader_source(lab, text).encode(),
            "nbgrader/nbgrader_config.py": CONFIGURATION.encode(),
        }
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in made]


def remake_starters(lab_ids: Sequence[str] = ()) -> list[Path]:
    """Write starter.py and reference.py of these labs, or of all, anew from lab.py."""
    made = {path: text for lab in _masters(lab_ids) for path, text in _starters(lab)}
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    if find_spec("ruff"):
        for command in (("check", "--quiet", "--fix", "--select", "I"), ("format", "--quiet")):
            subprocess.run([sys.executable, "-m", "ruff", *command, *made], check=True)
    return list(made)


def _starters(lab: Lab) -> Iterator[tuple[Path, str]]:
    number, text = int(lab.lab_id.removeprefix("lab")), _master(lab)
    yield (
        lab.folder / "starter.py",
        f'"""What a student of lab {number} starts with: the definitions of his notebook. Made from lab.py."""\n\n'
        f"# ruff: noqa: F401\n\n{master.definitions(master.without_solutions(text))}",
    )
    yield (
        lab.folder / "reference.py",
        f'"""The solution of lab {number}: the definitions of lab.py with their solutions. Made from lab.py."""\n\n'
        f"# ruff: noqa: F401\n\n{master.definitions(master.with_solutions(text))}",
    )


def _masters(lab_ids: Sequence[str]) -> list[Lab]:
    labs = [find_lab(name) for name in lab_ids] or all_labs()
    if not labs:
        raise LlmlabError(say("no_labs"))
    for lab in labs:
        if not has_hidden_checks(lab):
            raise LlmlabError(
                f"This installation of {lab.lab_id} is for students: it has no solutions and no hidden checks. Clone "
                "the repository and work from its folder."
            )
    return labs


def _master(lab: Lab) -> str:
    return (lab.folder / "lab.py").read_text(encoding="utf-8")
