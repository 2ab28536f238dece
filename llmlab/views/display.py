"""Where a view appears: a widget in a notebook that somebody looks at, its frozen twin where nobody does.

The only file of the views that talks to IPython. This file must not know runs or stories.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Literal, Protocol

from IPython import get_ipython

Bundle = dict[str, Any]
Place = Literal["page", "file", "terminal", "none"]


class Shown(Protocol):
    def left(self) -> None:
        """No cell shows it any more."""


def place() -> Place:
    """Where output goes: to a page with a user, to a file (nbclient), to a terminal; "none" outside IPython.

    nbclient has no one who could answer input(), and says so in each request: that tells it from a front end.
    """
    shell = get_ipython()
    if shell is None:
        return "none"
    if not hasattr(shell, "kernel"):
        return "terminal"
    return "page" if shell.get_parent().get("content", {}).get("allow_stdin", True) else "file"


def is_one_document() -> bool:
    """HTML outputs and widgets stand in one document: a widget can be put in front of a twin.

    So they do in JupyterLab and in Notebook 7, which tell with each cell which others were deleted. Elsewhere an output
    may have a document of its own.
    """
    shell = get_ipython()
    return hasattr(shell, "kernel") and "deletedCells" in shell.get_parent().get("metadata", {})


def publish(bundle: Bundle, display_id: str, *, update: bool = False) -> None:
    """Show the bundle, or put it where one of that id was shown. Any thread."""
    from IPython.display import display

    display(bundle, raw=True, display_id=display_id, update=update)


def show_each(*shown: object) -> None:
    """One output after the other, as a cell shows its value."""
    from IPython.display import display

    for one in shown:
        display(one)


def view_of(widget: Any) -> dict[str, Any]:
    """What a front end needs to show a widget."""
    model = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": model}


class Cells:
    """Which views each cell shows: those of an earlier run of the cell are let go when it runs again.

    `is_running`: a cell runs now.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[Hashable, list[Shown]] = {}
        self._is_hooked = self.is_running = False
        self._after: list[Callable[[], object]] = []

    def add(self, view: Shown) -> None:
        """The cell that runs now shows this view."""
        self.hook()
        with self._lock:
            shown = self._shown.setdefault(_cell(), [])
            if view not in shown:
                shown.append(view)

    def after_each(self, act: Callable[[], object]) -> Callable[[], None]:
        """Call act() at the end of each cell, while its output can still change; returns what ends that."""
        self.hook()
        self._after.append(act)
        return lambda: self._after.remove(act) if act in self._after else None

    def hook(self) -> None:
        """Follow the cells, from the one on that runs now."""
        shell = get_ipython()
        if shell is not None and not self._is_hooked:
            self._is_hooked = self.is_running = True
            shell.events.register("pre_run_cell", self._before_cell)
            shell.events.register("post_run_cell", self._after_cell)

    def _before_cell(self, *_: Any) -> None:
        self.is_running = True
        with self._lock:
            gone = self._shown.pop(_cell(), [])
            still = {id(view) for views in self._shown.values() for view in views}
        for view in gone:
            if id(view) not in still:
                view.left()

    def _after_cell(self, *_: Any) -> None:
        self.is_running = False
        for act in list(self._after):
            act()


def _cell() -> Hashable:
    """The cell that runs now; each execution is one of its own where the front end does not name cells."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "kernel") else {}
    return parent.get("metadata", {}).get("cellId") or ("execution", shell.execution_count)


CELLS = Cells()
