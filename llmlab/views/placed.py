"""Placed: what all views have in common, a place in a cell. A widget appears there while somebody looks; a twin stays.

The output of the cell holds only the twin: that is what a notebook saves, and shows without a kernel. In a page that
has one, the widget stands in front of it (static/place.js). This file must not know what a view draws.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from llmlab.views.widget import PlacedWidget

W = TypeVar("W", bound="PlacedWidget")


class Placed(Generic[W]):
    """The last line of a cell, or display() of it, shows it."""

    def __init__(self) -> None:
        self._display_id = uuid.uuid4().hex
        self._widget: W | None = None
        self._is_shown = False  # in a cell, now or before
        self._end_hook: Callable[[], None] | None = None

    def bundle(self) -> dict[str, Any]:
        """The twin, in a form for every program that reads a notebook."""
        raise NotImplementedError

    def _make_widget(self) -> W:
        raise NotImplementedError

    @property
    def widget(self) -> W:
        """The AnyWidget, for front ends and layouts of your own: `mo.ui.anywidget(view.widget)`."""
        if self._widget is None or self._widget.comm is None:
            self._widget = self._make_widget()
        return self._widget

    def freeze(self) -> None:
        """Put the twin alone where the view is shown."""
        from llmlab.views.display import publish

        if self._is_shown:
            publish(self.bundle(), self._display_id, update=True)
        self.left()

    def republish(self) -> None:
        """Put the twin of now where the view is shown, below its widget."""
        from llmlab.views.display import publish

        if self._is_shown:
            publish(self._placed(self.bundle()), self._display_id, update=True)

    def left(self) -> None:
        """No cell shows it any more."""
        self._forget_end()
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.close()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return self.bundle()

    def _ipython_display_(self) -> None:
        from llmlab.views.display import CELLS, place

        where = place()
        if where in ("terminal", "none"):
            print(self)
            return
        CELLS.add(self)
        self._is_shown = True
        self._appear(is_page=where == "page")

    def _appear(self, *, is_page: bool) -> None:
        from llmlab.views.display import publish

        bundle = self.bundle()
        if is_page:
            self.widget.place = self._display_id
        publish(self._placed(bundle), self._display_id)

    def _placed(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """The twin as the place in front of which the widget stands, if there is one."""
        widget = self._widget
        if widget is None or not widget.place:
            return bundle
        html = bundle.get("text/html") or f"<pre>{escape(bundle['text/plain'])}</pre>"
        return bundle | {"text/html": f'<div data-llmlab-place="{widget.place}">{html}</div>'}

    def _at_cell_ends(self, act: Callable[[], object]) -> None:
        """Call act() at the end of each cell, until the view is left."""
        from llmlab.views.display import CELLS

        self._end_hook = self._end_hook or CELLS.after_each(act)

    def _forget_end(self) -> None:
        if self._end_hook is not None:
            self._end_hook()
            self._end_hook = None
