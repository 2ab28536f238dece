"""CompareView: what llmlab.side_by_side() returns, the columns of a comparison. It is live while they fill.

This file must not know engines, nor how anything is drawn: on a page that is static/compare.js, in a twin
compare_twin.py.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmlab.compare import Comparison
from llmlab.errors import LlmlabError
from llmlab.views.compare_data import Data, all_answered, cell_data, compare_data, head_data, num_shown, title
from llmlab.views.page import frame
from llmlab.views.placed import Placed

if TYPE_CHECKING:
    from llmlab.views.compare_widget import CompareWidget

PERIOD_S = 0.05
Mode = Literal["text", "diff", "logprobs"]
_json = msgspec.json.Encoder().encode


def side_by_side(comparison: Comparison, *, mode: Mode = "text") -> CompareView:
    """The columns of a comparison, live while they fill. `mode`: plain text, the words that differ, or how likely.

    Raises: LlmlabError for anything but a comparison.
    """
    if not isinstance(comparison, Comparison):
        raise LlmlabError(
            f"side_by_side() shows a comparison, not an object of type {type(comparison).__name__}. "
            'Make one: llmlab.compare("Why is the sky blue?", engines=[a, b]).'
        )
    return CompareView(comparison, mode)


class CompareView(Placed["CompareWidget"]):
    """The last line of a cell, or display() of it, shows the columns."""

    def __init__(self, comparison: Comparison, mode: Mode = "text") -> None:
        super().__init__()
        self.comparison, self.mode = comparison, mode
        self._is_followed = self._is_finished = False
        self._lock = threading.Lock()
        self._sent: dict[tuple[int, int], tuple[Any, ...]] = {}  # cell -> what of it was sent
        self._told: tuple[Any, ...] = ()

    # ---- what a user does

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """Write it into one file that needs no kernel and no network."""
        path = Path(path)
        data = {**compare_data(self.comparison), "mode": self.mode}
        path.write_text(frame(data, module="compare_page", title=title(self.comparison), theme=theme), encoding="utf-8")
        return path

    def html(self) -> str:
        """The twin: a piece of page without scripts."""
        from llmlab.views.compare_twin import twin_html

        return twin_html(self.comparison, self.mode)

    def bundle(self) -> dict[str, Any]:
        return {"text/plain": repr(self.comparison), "text/html": self.html()}

    def __repr__(self) -> str:
        return repr(self.comparison)

    # ---- what the page says, in any thread

    def answer(self, message: Data) -> None:
        kind, told = message.get("t"), self.comparison
        with suppress(LlmlabError):  # a click that came too late
            if kind == "need":
                self._send_all()
            elif kind == "stop":
                column = message.get("column")
                told.stop(int(column) if column is not None and not told.is_blind else None)
            elif kind == "vote":
                told.vote(str(message.get("choice")), int(message.get("prompt") or 0))
                self._send_all()
            elif kind == "reveal":
                told.reveal()
                self._send_all()
                self.republish()
            elif kind == "why" and told.done and not told.is_blind:
                told.parting(int(message.get("prompt") or 0), int(message.get("b") or 1))
                self._send_all()
                self.republish()

    # ---- the page

    def _make_widget(self) -> CompareWidget:
        from llmlab.views.compare_widget import CompareWidget

        opening = _json({**compare_data(self.comparison), "mode": self.mode})
        return CompareWidget(opening, self.answer)

    def _appear(self, *, is_page: bool) -> None:
        super()._appear(is_page=is_page)
        if not self.comparison.done:
            self._at_cell_ends(self._finish)
            self.follow()

    def follow(self) -> None:
        """Tell the widget what is new, until all is over."""
        if not self._is_followed:
            self._is_followed = True
            if self._widget is not None:
                self._widget.is_live = True
            threading.Thread(target=self._follow, name="llmlab compare view", daemon=True).start()

    def _follow(self) -> None:
        while not self._finish():
            if self._is_seen:
                self._send_news()
            self.comparison.wait_news(PERIOD_S)
            time.sleep(PERIOD_S)

    def _finish(self) -> bool:
        """When all is over: send the rest, and leave the twin. False while it goes on."""
        if not self.comparison.done:
            return False
        with self._lock:
            if self._is_finished:
                return True
            self._is_finished = True
        self._forget_end()
        self._send_all()
        if self._widget is not None:
            self._widget.is_live = False
        self.republish()
        return True

    @property
    def _is_seen(self) -> bool:
        widget = self._widget
        return widget is not None and widget.presence.is_there()

    def _send_all(self) -> None:
        self._send({"t": "k", **compare_data(self.comparison)})

    def _send_news(self) -> None:
        """What changed since the last message."""
        told = self.comparison
        columns = tuple((c.error, c.is_stopped, c.rss_bytes) for c in told.columns)
        now = (told.state, told.is_blind, len(told.votes), len(told.tested_partings()), columns)
        head = head_data(told) if now != self._told else None
        self._told = now
        cells = [
            {"i": i, "j": j, **cell}
            for i in range(num_shown(told))
            for j in range(len(told.columns))
            if (cell := self._news_of(i, j)) is not None
        ]
        if head is not None or cells:
            self._send({"t": "s", "head": head, "cells": cells})

    def _news_of(self, i: int, j: int) -> Data | None:
        """One cell, when something of it is new."""
        told, before = self.comparison, self._sent.get((i, j), (0, "waiting", None, None))
        if before[3] is True:
            return None
        cell = cell_data(told, i, j, before[0])
        num_tokens = before[0] + len(cell["tokens"])
        is_final = cell["state"] not in ("waiting", "held", "streaming") and all_answered(told, i)
        now = (num_tokens, cell["state"], cell.get("differs_at"), is_final)
        if now == before:
            return None
        self._sent[i, j] = now
        return cell

    def _send(self, message: Data) -> None:
        widget = self._widget
        if widget is not None and widget.comm is not None:
            widget.send({}, [_json(message)])
