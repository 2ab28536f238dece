"""StoryView: what kv_cache(), timeline() and watch() return. It is live while its run goes on; then its twin stays.

This file must not know engines, nor how anything is drawn.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.views.live import Live, Message
from llmlab.views.page import write_page
from llmlab.views.story import Story

if TYPE_CHECKING:
    from llmlab.views.twin import Twin
    from llmlab.views.widget import View


class StoryView:
    """A picture of a run, or several linked ones: the last line of a cell, or display() of it, shows it.

    `parts`: which pictures, "kv" and "timeline". `told`: the story, or the Live that tells it.
    """

    def __init__(self, told: Story | Live, parts: list[str], title: str, story_id: str) -> None:
        self._told, self.parts, self.title = told, parts, title
        self._story_id = story_id
        self._display_id = uuid.uuid4().hex
        self._widget: View | None = None
        self._at: int | None = None  # where the user stopped to look; None: at the end
        self._end_hook: Callable[[], None] | None = None

    # ---- what a user does

    @property
    def story(self) -> Story | None:
        """With all steps so far; None before the first."""
        return self._told.catch_up() if isinstance(self._told, Live) else self._told

    @property
    def is_live(self) -> bool:
        """The run goes on."""
        return isinstance(self._told, Live) and not self._told.run.done

    @property
    def widget(self) -> View:
        """The AnyWidget, for front ends and layouts of your own: `mo.ui.anywidget(view.widget)`."""
        from llmlab.views.widget import View

        if self._widget is None or self._widget.comm is None:
            self._widget = View(self.story, self._answer, parts=self.parts, title=self.title, id=self._story_id)
            if isinstance(self._told, Live) and self.is_live:
                self._widget.state = "running"
                self._told.attach(self)
        return self._widget

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """Write all of it, to scrub through, into one file that needs no kernel and no network.

        Raises: LookupError when no step has come yet.
        """
        story = self.story
        if story is None:
            raise LookupError("Nothing has run yet, so there is nothing to write.")
        return write_page(path, story, parts=self.parts, title=self.title, theme=theme)

    def twin(self) -> Twin:
        """The picture that stays: at the last step, or where somebody stopped to look."""
        from llmlab.views.twin import Twin

        return Twin(self.story, self.parts, self.title, self._at)

    def freeze(self) -> None:
        """Put the twin where the view is shown; a notebook that is saved then needs no kernel to show it."""
        from llmlab.views.display import publish

        publish(self.twin().bundle(), self._display_id, update=True)
        self._close()

    def __repr__(self) -> str:
        return self.twin().text()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return self.twin().bundle()

    def _ipython_display_(self) -> None:
        from llmlab.views.display import CELLS, place, publish, view_of

        where = place()
        if where in ("terminal", "none"):
            print(self)
            return
        CELLS.add(self)
        live = self._told if isinstance(self._told, Live) and self.is_live else None  # asked once: it may end meanwhile
        shown: dict[str, Any] = {"text/plain": self.title}
        if where == "file" or live is None:
            shown = {**self.twin().bundle()}
        publish(shown | (view_of(self.widget) if where == "page" else {}), self._display_id)
        if live is not None:
            live.attach(self)
            self._end_hook = self._end_hook or CELLS.after_each(live.finish)

    # ---- what the live story says

    def send(self, message: Message) -> None:
        if self._widget is not None:
            self._widget.send(message)

    def tell(self, state: str, note: list[Any], is_awaited: bool) -> None:
        widget = self._widget
        if widget is not None:
            with widget.hold_sync():
                widget.state, widget.note, widget.is_awaited = state, note, is_awaited

    def left(self) -> None:
        """No cell shows it any more."""
        self._close()

    def _close(self) -> None:
        if isinstance(self._told, Live):
            self._told.detach(self)
        if self._end_hook is not None:
            self._end_hook()
            self._end_hook = None
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.close()

    # ---- what the page says, in any thread

    def _answer(self, message: Message) -> None:
        kind, told = message.get("t"), self._told
        if kind == "at":
            at = message.get("i")
            self._at = at if isinstance(at, int) and at >= 0 else None
        elif isinstance(told, Live):
            if kind == "stop":
                told.stop()
            elif kind == "drive":
                told.drive(message)
            elif kind == "need":
                told.need(self, int(message.get("have") or 0))
