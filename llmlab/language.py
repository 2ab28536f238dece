"""What a student reads, in his language: the English sentence is the key, a translation is a file of data.

    LLMLAB_LANG=zh_CN      llmlab/translations/zh_CN/*.toml; a sentence that is missing there stays English

Each entry of such a file has `en`, the sentence as it stands in the code, and `to`. Values are named fields: the same
ones in both, in any order. `python scripts/translations.py zh_CN` adds what is missing, to be filled in.
This file must not know any sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

TRANSLATIONS = Path(__file__).resolve().parent / "translations"
VARIABLE = "LLMLAB_LANG"
_is_english = ContextVar("_is_english", default=False)


def tr(english: str, /, **values: object) -> str:
    """The sentence in the language that was asked for, with its values. Without values, braces stay braces.

    >>> tr("{count} more are not shown.", count=3)
    '3 more are not shown.'
    """
    text = table(language()).get(english) or english
    return text.format(**values) if values else text


@contextmanager
def english() -> Iterator[None]:
    """For a while: where another language cannot be shown."""
    token = _is_english.set(True)
    try:
        yield
    finally:
        _is_english.reset(token)


def language() -> str:
    """`zh_CN`; "" for English, and for a language that nobody translated to."""
    if _is_english.get():
        return ""
    name = os.environ.get(VARIABLE, "").partition(".")[0].replace("-", "_")
    return name if name and _is_translated(name) else ""


@cache
def _is_translated(name: str) -> bool:
    return (TRANSLATIONS / name).is_dir()


def tr_notebook(notebook: str) -> str:
    """An .ipynb file with its text cells in that language; code, with its comments, stays."""
    if not language():
        return notebook
    import json  # only a translated notebook needs it

    book = json.loads(notebook)
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = tr("".join(cell["source"])).splitlines(keepends=True)
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


@cache
def table(name: str) -> Mapping[str, str]:
    """English sentence -> sentence, of all files of a language; entries that nobody filled in are ""."""
    files = sorted((TRANSLATIONS / name).glob("*.toml")) if name else []
    return {entry["en"]: entry["to"] for file in files for entry in read(file)}


def read(file: Path) -> list[dict[str, str]]:
    """The entries of one file, in its order."""
    import tomllib  # only where there is something to read

    return list(tomllib.loads(file.read_text(encoding="utf-8")).get("text", []))
