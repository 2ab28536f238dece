"""Which labs there are: each is a folder labs/labNN_name/ whose checks.py describes it.

This file must not know what is in a lab.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path

from llmlab.cards import Card
from llmlab.errors import LlmlabError, unknown
from llmlab.labs.description import Lab
from llmlab.labs.sentences import columns, say
from llmlab.language import tr

_PACKAGE = Path(__file__).resolve().parents[1]
# An installed package carries their form for students; a checkout has them beside the package, with solutions.
LABS = _PACKAGE / "exercises" if (_PACKAGE / "exercises").is_dir() else _PACKAGE.parent / "labs"


def labs() -> Card:
    """The labs there are, as a table."""
    rows = tuple(
        (lab.lab_id, tr(lab.title), say("minutes", count=lab.minutes), len(lab.questions), ", ".join(lab.engines))
        for lab in all_labs()
    )
    return Card(say("labs_title"), columns("labs_columns"), rows, (say("next_after_list"),))


def all_labs() -> list[Lab]:
    """In the order of their numbers."""
    return [load_lab(folder) for folder in _lab_folders().values()]


def find_lab(name: str) -> Lab:
    """By its id (`lab03`) or the name of its folder.

    Raises: LlmlabError with the nearest id.
    """
    folders = _lab_folders()
    lab_id = name.partition("_")[0].lower()
    if lab_id not in folders:
        raise LlmlabError(unknown("lab", name, folders) if folders else say("no_labs"))
    return load_lab(folders[lab_id])


@cache
def load_lab(folder: Path) -> Lab:
    """The LAB of a folder's checks.py."""
    spec = importlib.util.spec_from_file_location(f"llmlab_{folder.name}_checks", folder / "checks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return replace(module.LAB, folder=folder)


def _lab_folders() -> dict[str, Path]:
    """lab id -> folder."""
    found = sorted(path.parent for path in LABS.glob("lab[0-9][0-9]_*/checks.py"))
    return {folder.name.partition("_")[0]: folder for folder in found}
