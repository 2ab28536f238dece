"""Who answers when: prompt by prompt, the columns one after the other, or all at once. A column that fails leaves the
others going.

This file must not know what is done with the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from llmlab.compare.columns import Column
from llmlab.engines.prompts import PromptLike
from llmlab.engines.run import Run
from llmlab.errors import LlmlabError, RequestError


class Turns:
    """All turns of a comparison. run() takes as long as the engines do; stop() may be called in any thread.

    `at_once`: how many prompts a column answers together in one turn. `news` is called whenever something changed.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        prompts: Sequence[PromptLike],
        *,
        together: bool,
        at_once: int,
        news: Callable[[], None],
    ) -> None:
        self._columns, self._prompts = columns, prompts
        self._together, self._at_once, self._news = together, at_once, news

    def run(self) -> None:
        for first in range(0, len(self._prompts), self._at_once):
            prompts = list(self._prompts[first : first + self._at_once])
            turns = [self._columns] if self._together else [[column] for column in self._columns]
            for columns in turns:
                started = [(column, run) for column in columns if (run := self._start(column, prompts)) is not None]
                for column, run in started:
                    self._finish(column, run)
        for column in self._columns:
            _weigh(column)

    def stop(self, columns: Sequence[Column]) -> None:
        """They keep what has come, and take no further turn."""
        for column in columns:  # all of them first: the end of one is the turn of the next
            column.is_stopped = True
        for column in columns:
            if column.run is not None and not column.run.done:
                column.run.stop()
        self._news()

    def _start(self, column: Column, prompts: list[PromptLike]) -> Run | None:
        if column.is_over:
            return None
        try:
            run = column.handle.batch(prompts, **_told(column.options))
        except LlmlabError as error:
            column.error = str(error)
            return None
        column.places += [(run, place) for place in range(len(prompts))]
        if column.is_stopped:  # meanwhile
            run.stop()
        self._news()
        return run

    def _finish(self, column: Column, run: Run) -> None:
        try:
            run.wait()
        except RequestError:  # it stands in the results; the next prompt may be served
            pass
        except LlmlabError as error:
            column.error = str(error)
        self._news()


def _told(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _weigh(column: Column) -> None:
    """What the engine takes now, while what it answered with is still there."""
    if column.handle.alive:
        with suppress(LlmlabError):
            memory = column.handle.memory()
            column.rss_bytes = memory.pop("rss", None)
            column.memory = memory
