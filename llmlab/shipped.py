"""Where the data files lie that come with llmlab: workloads, texts, questions, claims.

This file must not know what is in them.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries them inside the package.
_FOLDERS = (_PACKAGE.parent / "datasets", _PACKAGE / "datasets")


def shipped(path: str) -> Path:
    """The file or folder of that name below datasets/.

    >>> shipped("workloads/burst.json").name
    'burst.json'

    Raises: FileNotFoundError when this installation lacks it.
    """
    for folder in _FOLDERS:
        if (folder / path).exists():
            return folder / path
    raise FileNotFoundError(f"datasets/{path} is missing from this installation of llmlab.")
