"""Panel: what llmlab.panel() returns. Pick engines, load others, set the sampling, type, run; the answers appear in
columns, the KV cache and the timeline of each engine in tabs beside them.

This file must not know how anything is drawn: that is static/panel_widget.js.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any

from llmlab.compare import Comparison, compare
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.engines.packages import missing, packages
from llmlab.engines.registry import handles
from llmlab.errors import LlmlabError
from llmlab.models import QUANTS, known
from llmlab.views.compare import CompareView
from llmlab.views.placed import Placed
from llmlab.views.shows import watch

if TYPE_CHECKING:
    from llmlab.views.compare_data import Data
    from llmlab.views.panel_widget import PanelWidget
    from llmlab.views.story_view import StoryView

POLL_S = 0.05
# What a form may set, with the type of its value.
_SETTINGS = {"temperature": float, "top_p": float, "max_tokens": int, "seed": int}
_NOTHING_YET = "Panel: pick engines, type a prompt, run. It needs the kernel; what it showed last stays here."


def panel(engines: Iterable[EngineHandle | str] | None = None) -> Panel:
    """A form over compare(): engines, model, quant, sampling, a prompt, Run; the keyboard alone will do.

    `engines`: which are picked at first; None: all that are loaded. The last comparison is in `.comparison`.
    """
    return Panel([engine if isinstance(engine, str) else engine.name for engine in engines or handles()])


class Panel(Placed["PanelWidget"]):
    """The last line of a cell, or display() of it, shows the form."""

    def __init__(self, chosen: list[str]) -> None:
        super().__init__()
        self.comparison: Comparison | None = None
        self._chosen = chosen
        self._busy, self._error = "", ""
        self._tabs: list[dict[str, str]] = []
        self._views: list[CompareView | StoryView] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return _NOTHING_YET if self.comparison is None else repr(self.comparison)

    def bundle(self) -> dict[str, Any]:
        html = f"<p>{escape(_NOTHING_YET)}</p>" if self.comparison is None else self.comparison.view.html()
        return {"text/plain": repr(self), "text/html": html}

    # ---- what the page says, in any thread

    def answer(self, message: Data) -> None:
        """Anything that takes time gets a thread of its own: the next message must be heard."""
        kind = message.get("t")
        if kind == "stop" and self.comparison is not None:
            self.comparison.stop()
        elif kind == "refresh":
            self._tell()
        elif kind in ("run", "load"):
            with self._lock:
                if self._busy:
                    return
                self._busy, self._error = ("Loading …" if kind == "load" else "Running …"), ""
            act = self._load if kind == "load" else self._run
            threading.Thread(target=self._guarded, args=(act, message), name="llmlab panel", daemon=True).start()

    def _guarded(self, act: Any, message: Data) -> None:
        self._tell()
        try:
            act(message)
        except LlmlabError as error:
            self._error = str(error)
        finally:
            self._busy = ""
            self._tell()

    def _load(self, message: Data) -> None:
        quant = str(message.get("quant") or "") or None
        loaded = load(str(message.get("model")), str(message.get("engine")), quant=quant)
        self._chosen.append(loaded.name)

    def _run(self, message: Data) -> None:
        self._chosen = [str(name) for name in message.get("engines") or []]
        options = settings_of(message)
        prompt = str(message.get("prompt") or "")
        together = bool(message.get("together"))
        self.comparison = compare(prompt, self._chosen, together=together, wait=False, **options)
        self._leave_tabs()
        view = CompareView(self.comparison)
        self._views.append(view)
        self._tabs = [{"title": "Answers", "model": str(view.widget.model_id)}]
        view.follow()
        self._tell()
        self._open_tabs(self.comparison)
        with suppress(LlmlabError):  # the columns tell it
            self.comparison.wait()
        if self._widget is not None:
            self.republish()

    def _open_tabs(self, comparison: Comparison) -> None:
        """The KV cache and the timeline of each column, as soon as it has begun."""
        is_over, left = False, list(comparison.columns)
        while left and not is_over:
            is_over = comparison.done  # what has not begun now never will
            for column in list(left):
                if (run := column.run) is not None:
                    left.remove(column)
                    self._open_tab(f"KV cache and timeline: {column.name}", watch(run))
            time.sleep(POLL_S)

    def _open_tab(self, title: str, view: StoryView) -> None:
        self._views.append(view)
        self._tabs = [*self._tabs, {"title": title, "model": str(view.widget.model_id)}]
        self._tell()

    # ---- the page

    def state(self) -> Data:
        """What the form shows."""
        here = handles()
        return {
            "engines": [
                {"name": name, "what": _what(handle), "alive": handle.alive, "chosen": name in self._chosen}
                for name, handle in here.items()
            ],
            "kinds": [name for name in packages() if missing(name) is None],
            "models": [model.name for model in known()],
            "quants": list(QUANTS),
            "busy": self._busy,
            "is_running": bool(self._busy) and self.comparison is not None and not self.comparison.done,
            "error": self._error,
            "tabs": self._tabs,
        }

    def _make_widget(self) -> PanelWidget:
        from llmlab.views.panel_widget import PanelWidget

        return PanelWidget(self.state(), self.answer)

    def left(self) -> None:
        self._leave_tabs()
        super().left()

    def _leave_tabs(self) -> None:
        views, self._views, self._tabs = self._views, [], []
        for view in views:
            view.left()

    def _tell(self) -> None:
        widget = self._widget
        if widget is not None and widget.comm is not None:
            widget.state = self.state()


def settings_of(message: Data) -> dict[str, Any]:
    """The options of generate() in a form; a field that is empty is not given.

    >>> settings_of({"temperature": "0.7", "max_tokens": "64", "top_p": "", "seed": None})
    {'temperature': 0.7, 'max_tokens': 64}

    Raises: LlmlabError for what is no number.
    """
    found: dict[str, Any] = {}
    for name, kind in _SETTINGS.items():
        value = message.get(name)
        if value in ("", None):
            continue
        try:
            found[name] = kind(value)
        except (TypeError, ValueError):
            raise LlmlabError(f"{name} is {value!r}; it must be a number. Leave it empty for the default.") from None
    if message.get("system"):
        found["system"] = str(message["system"])
    return found


def _what(handle: EngineHandle) -> str:
    header = handle.header
    return " ".join(word for word in (handle.engine, header.model, header.quant or header.dtype) if word)
