"""%load_ext llmlab. The only part of llmlab that imports IPython; nothing in here computes, it calls the library.

Reading order: grammar (what can be typed), parsing, line (how it becomes a call), verbs/ (the calls), then what shows
the results: stream_display, render, shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from warnings import warn

from llmlab.language import tr

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

NAMES = ("llm", "llmlab")
_loaded: dict[int, Any] = {}  # id of the shell -> what takes the extension out again


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register %llm, %%llm, the alias %llmlab, their Tab completion, and how answers look."""
    from llmlab.magics.extension import Extension

    unload_ipython_extension(shell)
    owner = shell.find_line_magic("llm") or shell.find_cell_magic("llm")
    if owner is not None:
        warn(tr("%llm belonged to {owner}; from here on it is llmlab's.", owner=_origin(owner)), stacklevel=2)
    _loaded[id(shell)] = Extension(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take everything out again; loaded engines stay."""
    extension = _loaded.pop(id(shell), None)
    if extension is not None:
        extension.close()


def _origin(owner: Any) -> str:
    return getattr(owner, "__module__", None) or type(owner).__name__
