"""StoryView: what kv_cache(), timeline() and watch() return. It is live while its run goes on; then its twin stays.

This file must not know engines, nor how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.trace import Trace
from llmlab.views.live import Live, Message, steps_message
from llmlab.views.page import write_page
from llmlab.views.placed import Placed
from llmlab.views.story import Story, no_garbage

if TYPE_CHECKING:
    from llmlab.views.twin import Twin
    from llmlab.views.widget import View

# A page draws the beginning of a long trace while the rest is told, in few parts: it draws each of them.
PART_STEPS, NEXT_PART_STEPS = 1000, 3000
# What a notebook shows that was saved before there was a twin, when its kernel is gone.
UNENDED = "The run had not ended when this notebook was saved, so there is no picture of it. Run the cell again."
UNDRAWN = "This notebook was saved before the picture was drawn. Run the cell again."


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
        self._options: dict[str, Any] = {"parts": parts, "title": title, "presentation": presentation}
        self._at: int | None = None  # where the user stopped to look; None: at the end
        self._rest: Iterator[int] = iter(())  # tells what is left of a trace
        self._num_steps = 0  # of it

    @classmethod
    def of_trace(
        cls, trace: Trace, parts: list[str], title: str, story_id: str, *, presentation: bool = False
    ) -> StoryView:
        """Of a long trace, only the beginning is told at once."""
        story = Story(trace.header)
        view = cls(story, parts, title, story_id, presentation=presentation)
        view._num_steps = num_steps = len(trace.step_records)
        is_long = num_steps > 2 * PART_STEPS and not trace.incidents
        parts_end = range(PART_STEPS, num_steps, NEXT_PART_STEPS) if is_long else ()
        view._rest = story.tell(trace, [*parts_end, num_steps])
        next(view._rest)
        return view

    # ---- what a user does

    @property
    def story(self) -> Story | None:
        """With all steps so far; None before the first."""
        if not isinstance(self._told, Live):
            for _ in self._rest:
                pass
            return self._told
        story = self._told.catch_up()
        if story is not None and (self._told.run.died or self._told.run.is_cut):
            story.tell_end(self._told.run.trace.incidents)
        return story

    @property
    def is_live(self) -> bool:
        """The run goes on."""
        return isinstance(self._told, Live) and not self._told.run.done

    def _make_widget(self) -> View:
        from llmlab.views.widget import View

        # an engine that others use too cannot be held
        run = self._told.run if isinstance(self._told, Live) else None
        held = {"is_shared": True} if run is not None and run.engine is not None and run.engine.is_remote else {}
        widget = View(self.story, self._answer, **self._options, **held, id=self._story_id)
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
        told = self._told
        if isinstance(told, Story) and is_page and len(told.steps) < self._num_steps:
            self._appear_in_parts(told)
            return
        live = told if isinstance(told, Live) and self.is_live else None  # asked once: it may end meanwhile
        if live is None:
            super()._appear(is_page=is_page)
            return
        from llmlab.views.display import publish

        publish(self._live_bundle() if is_page else self.bundle(), self._display_id)
        live.attach(self)
        self._at_cell_ends(live.finish)

    def _live_bundle(self) -> dict[str, Any]:
        from llmlab.views.display import is_one_document, view_of

        if not is_one_document():
            return self._without_twin(UNENDED) | view_of(self.widget)
        self.widget.place = self._display_id
        return self._placed(self._without_twin(UNENDED))

    def _without_twin(self, why: str) -> dict[str, Any]:
        html = f"<p><b>{escape(self.title)}.</b> {escape(why)}</p>"
        return {"text/plain": f"{self.title}. {why}", "text/html": html}

    def _appear_in_parts(self, story: Story) -> None:
        """The page draws what it has, while the rest is told; the twin comes last."""
        from llmlab.views.display import publish
        from llmlab.views.widget import View

        sent = len(story.steps)
        num_left = self._num_steps - sent
        self._widget = View(story, self._answer, num_left=num_left, **self._options, id=self._story_id)
        self._widget.state, self._widget.place = "telling", self._display_id
        publish(self._placed(self._without_twin(UNDRAWN)), self._display_id)
        with no_garbage():  # once at the end is enough, when the page has all
            for told in self._rest:
                self.send(steps_message(story, sent))
                sent = told
            self._widget.state = "ended"
            self.republish()

    # ---- what the live story says

    @property
    def is_seen(self) -> bool:
        widget = self._widget
        return widget is not None and widget.presence.is_there()

    def send(self, message: bytes) -> None:
        if self._widget is not None:
            self._widget.send({}, [message])

    def tell(self, state: str, note: list[Any], is_awaited: bool) -> None:
        widget = self._widget
        if widget is not None:
            with widget.hold_sync():
                widget.state, widget.note, widget.is_awaited = state, note, is_awaited

    def freeze(self) -> None:
        """The run has ended: the twin takes the place of the widget.

        The widget stays, with all of the story, in a layout of your own, which has no twin, and in front of its twin
        when the engine died: who sees that wants to look back.
        """
        widget = self._widget
        if widget is None or (self._is_shown and not (self._has_died and widget.place)):
            super().freeze()
        elif (story := self.story) is not None:
            from llmlab.views.widget import opening_of

            widget.opening = opening_of(story)  # for a page that is loaded again
            self._forget_end()
            self.republish()

    @property
    def _has_died(self) -> bool:
        return isinstance(self._told, Live) and self._told.run.died

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
        elif kind == "need" and isinstance(told, Story):
            self.send(steps_message(told, int(message.get("have") or 0)))
        elif isinstance(told, Live):
            if kind == "stop":
                told.stop()
            elif kind == "drive":
                told.drive(message)
            elif kind == "need":
                told.need(self, int(message.get("have") or 0))
