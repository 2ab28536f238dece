"""View: the one widget of all pictures of a run, with the words it exchanges with its page.

To the page: `opening`, a story as JSON, when it is made; then messages with what is new (see live.py), as JSON in a
buffer. From the page: {"t": "here" | "need" | "stop" | "drive" | "at", ...}. This file must not know runs or engines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets

from llmlab.views.assets import script, style
from llmlab.views.display import CELLS
from llmlab.views.presence import Presence
from llmlab.views.story import Story

Message = dict[str, Any]


class PlacedWidget(anywidget.AnyWidget):
    """Closes all of itself: a layout is a model of its own, and would stay in the kernel and in the page."""

    # Where in the page it stands in front of its twin, see static/place.js; "": nowhere by itself
    place = traitlets.Unicode("").tag(sync=True)

    def close(self) -> None:
        layout = self.layout
        super().close()
        layout.close()


class TalkingWidget(PlacedWidget):
    """Hears its page: `answer` is called with each message of it but "here", in any thread."""

    def __init__(self, answer: Callable[[Message], None], **traits: Any) -> None:
        super().__init__(**traits)
        CELLS.hook()
        self.presence = Presence(lambda: CELLS.is_running)
        self._answer = answer
        keep_subshell(self)
        self.on_msg(self._hear)

    def _hear(self, _: object, message: Message, buffers: object) -> None:
        self.presence.heard()
        if message.get("t") != "here":
            self._answer(message)


class View(TalkingWidget):
    """Draws a story."""

    _esm = script("widget")
    _css = style()

    # {head, requests, steps, num_left}; empty before there is a first step
    opening = traitlets.Bytes().tag(sync=True)
    # {parts, title, presentation, id of the story, kernel}
    options = traitlets.Dict().tag(sync=True)
    # "running", "paused", "stopping" or "ended"; "telling": the rest of a finished run is on its way
    state = traitlets.Unicode("ended").tag(sync=True)
    # A sentence about the engine, as [[words, is bold], ...]
    note: Any = traitlets.List().tag(sync=True)
    # A cell waits for the end of the run: interrupting the kernel stops it.
    is_awaited = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, story: Story | None, answer: Callable[[Message], None], *, num_left: int = 0, **options: Any
    ) -> None:
        opening = opening_of(story, num_left) if story is not None else b""
        super().__init__(answer, opening=opening, options={**options, "kernel": kernel_id()})


class TokensWidget(PlacedWidget):
    """Draws one answer, token by token."""

    _esm = script("tokens_widget")
    _css = style()

    data = traitlets.Bytes().tag(sync=True)

    def __init__(self, data: Message) -> None:
        super().__init__(data=json.dumps(data).encode())


def opening_of(story: Story, num_left: int = 0) -> bytes:
    """All of a story, as JSON; `num_left` steps of it come in messages."""
    told = {"head": story.head, "requests": story.requests, "steps": story.steps, "num_left": num_left}
    return msgspec.json.encode(told)


def keep_subshell(widget: Any) -> None:
    """Let a page's messages in while a cell runs.

    JupyterLab sends them to a thread of their own, a subshell. ipykernel 7.4 moves them to the thread that last wrote
    to the widget: for one that a cell made, the main thread, which is busy as long as the cell runs.
    """
    comm = getattr(widget, "comm", None)
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def kernel_id() -> str:
    """The id of this kernel in Jupyter's REST API; "" where there is none."""
    try:
        from ipykernel.connect import get_connection_file

        name = Path(get_connection_file()).stem
    except Exception:  # no kernel, or one that is no ipykernel
        return ""
    return name.removeprefix("kernel-") if name.startswith("kernel-") else ""
