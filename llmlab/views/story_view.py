"""StoryView: what kv_cache(), timeline() and watch() return. It is live while its run goes on; then its twin stays.

This file must not know engines, nor how anything is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.views.live import Live, Message
from llmlab.views.page import write_page
from llmlab.views.placed import Placed
from llmlab.views.story import Story

if TYPE_CHECKING:
    from llmlab.views.twin import Twin
    from llmlab.views.widget import View


class StoryView(Placed["View"]):
    """A picture of a run, or several linked ones: the last line of a cell, or display() of it, shows it.

    `parts`: which pictures, "kv" and "timeline". `told`: the story, or the Live that tells it.
    """

    def __init__(
        self, told: Story | Live, parts: list[str], title: str, story_id: str, *, presentation: bool = False
    ) -> None:
        super().__init__()
        self._told, self.parts, self.title = told, parts, title
        self._story_id = story_id
        self._options = {"parts": parts, "title": title, "presentation": presentation}
        self._at: int | None = None  # where the user stopped to look; None: at the end

    # ---- what a user does

    @property
    def story(self) -> Story | None:
        """With all steps so far; None before the first."""
        if not isinstance(self._told, Live):
            return self._told
        story = self._told.catch_up()
        if story is not None and self._told.run.died:
            story.tell_end(self._told.run.trace.incidents)
        return story

    @property
    def is_live(self) -> bool:
        """The run goes on."""
        return isinstance(self._told, Live) and not self._told.run.done

    def _make_widget(self) -> View:
        from llmlab.views.widget import View

        widget = View(self.story, self._answer, **self._options, id=self._story_id)
        if isinstance(self._told, Live) and self.is_live:
            widget.state = "running"
            self._told.attach(self)
        return widget

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """Write all of it, to scrub through, into one file that needs no kernel and no network.

        Raises: LookupError when no step has come yet.
        """
        story = self.story
        if story is None:
            raise LookupError("Nothing has run yet, so there is nothing to write.")
        return write_page(path, story, **self._options, theme=theme)

    def twin(self) -> Twin:
        """The picture that stays: at the last step, or where somebody stopped to look."""
        from llmlab.views.twin import Twin

        return Twin(self.story, self.parts, self.title, self._at)

    def bundle(self) -> dict[str, Any]:
        return self.twin().bundle()

    def __repr__(self) -> str:
        return self.twin().text()

    def _appear(self, *, is_page: bool) -> None:
        live = self._told if isinstance(self._told, Live) and self.is_live else None  # asked once: it may end meanwhile
        if live is None:
            super()._appear(is_page=is_page)
            return
        from llmlab.views.display import publish, view_of

        shown = {"text/plain": self.title} | view_of(self.widget) if is_page else self.bundle()
        publish(shown, self._display_id)
        live.attach(self)
        self._at_cell_ends(live.finish)

    # ---- what the live story says

    def send(self, message: bytes) -> None:
        if self._widget is not None:
            self._widget.send({}, [message])

    def tell(self, state: str, note: list[Any], is_awaited: bool) -> None:
        widget = self._widget
        if widget is not None:
            with widget.hold_sync():
                widget.state, widget.note, widget.is_awaited = state, note, is_awaited

    def left(self) -> None:
        if isinstance(self._told, Live):
            self._told.detach(self)
        super().left()

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
