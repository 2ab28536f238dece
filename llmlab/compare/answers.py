"""Answers: the columns of a comparison while they are asked, and where they part. A thread of its own asks the engines.

Every method may be called in any thread. This file must not know votes, tables or how anything looks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal, Self

from llmlab.compare.columns import Column
from llmlab.compare.diffs import Change, diff, words
from llmlab.compare.partings import Parting, parting_of, where
from llmlab.compare.prompt_sets import PromptSet, text_of
from llmlab.compare.turns import Turns
from llmlab.compare.votes import LETTERS
from llmlab.engines.bell import Bell
from llmlab.engines.result import Result
from llmlab.errors import EngineError, RequestError, unknown

State = Literal["running", "testing", "ended"]


class Answers:
    """The columns and what they said. `names` are the columns, `results[i][j]` is what column j said to prompt i."""

    def __init__(
        self, columns: Sequence[Column], asked: PromptSet, *, together: bool, at_once: int, causes: bool, blind: bool
    ) -> None:
        self.columns, self.asked = list(columns), asked
        self.together, self.at_once = together, at_once
        self.is_blind = blind
        self.state: State = "running"
        self._wants_causes = causes
        self._partings: dict[tuple[int, int], Parting | None] = {}
        self._is_stopped = False
        self._bell, self._end_bell = Bell(), Bell()
        self._turns = Turns(self.columns, asked.prompts, together=together, at_once=at_once, news=self._bell.ring)
        self._thread = threading.Thread(target=self._run, name="llmlab compare", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    # ---- what a user does

    @property
    def done(self) -> bool:
        """All has been asked, the causes too."""
        return self.state == "ended"

    def wait(self, timeout: float | None = None) -> Self:
        """Until all is answered and the causes were tested; after `timeout` seconds, or on Ctrl-C, it is stopped.

        Raises: EngineError or RequestError when no column has a single token: what the first one says.
        """
        try:
            if not self._end_bell.wait(lambda: self.done, timeout):
                self.stop()
        except BaseException:
            self.stop()
            raise
        self.require_answers()
        return self

    def require_answers(self) -> None:
        """Raises: EngineError or RequestError when all is over and no column has a single token."""
        results = [result for column in self.columns for result in column.results]
        if self.state == "running" or self._is_stopped or any(result.tokens for result in results):
            return
        for column in self.columns:
            if column.error is not None:
                raise EngineError(f"No column has an answer. {column.name}: {column.error}")
        refused = next((result.error for result in results if result.error), None)
        if refused is not None:
            raise RequestError(refused)

    def stop(self, column: int | str | None = None) -> None:
        """End one column, or all of them, on the engines too; what has come stays, as "interrupted".

        Raises: RequestError for a column that is not there.
        """
        if column is not None:
            self._turns.stop([self.columns[self._index(column)]])
            return
        self._is_stopped = True
        self._turns.stop(self.columns)
        self._end_bell.wait(lambda: self.state != "running", 5.0)

    @property
    def names(self) -> list[str]:
        """Of the columns; letters while they are hidden."""
        if self.is_blind:
            return [f"({LETTERS[i]})" for i in range(len(self.columns))]
        return [column.name for column in self.columns]

    @property
    def prompts(self) -> list[str]:
        """As a person reads them."""
        return [text_of(prompt) for prompt in self.asked.prompts]

    @property
    def results(self) -> list[list[Result | None]]:
        """results[i][j]: what column j said to prompt i; None where it did not come to it."""
        return [[column.result(i) for column in self.columns] for i in range(len(self.asked.prompts))]

    def __getitem__(self, name: int | str) -> list[Result]:
        """The answers of one column."""
        return self.columns[self._index(name)].results

    # ---- where they part

    def parting(self, prompt: int = 0, b: int | str = 1, a: int | str = 0) -> Parting | None:
        """Where columns a and b part on this prompt, and why; None when they do not.

        The engines are asked for the causes now, if they were not before; while answers come, only the place is told.
        """
        first, second = self._index(a), self._index(b)
        if self.state == "running" or not self._wants_causes:
            return where(self.columns, (first, second), prompt)
        if first != 0:
            return parting_of(self.columns, (first, second), prompt, self.asked.prompts[prompt])
        key = (prompt, second)
        if key not in self._partings:
            self._partings[key] = parting_of(self.columns, (0, second), prompt, self.asked.prompts[prompt])
        return self._partings[key]

    def known_parting(self, prompt: int, b: int) -> Parting | None:
        """parting() as far as it is known: no engine is asked."""
        return self._partings.get((prompt, b)) or where(self.columns, (0, b), prompt)

    def known_partings(self) -> list[Parting]:
        """Every place where a column parts from the first one, as far as it is known: no engine is asked."""
        pairs = ((i, b) for i in range(len(self.asked.prompts)) for b in range(1, len(self.columns)))
        return [found for prompt, b in pairs if (found := self.known_parting(prompt, b)) is not None]

    def tested_partings(self) -> list[Parting]:
        """Those whose causes were tested."""
        return [parting for parting in list(self._partings.values()) if parting is not None]

    def known_first(self) -> Parting | None:
        """first_divergence as far as it is known: no engine is asked."""
        for prompt in range(len(self.asked.prompts)):
            found = [p for b in range(1, len(self.columns)) if (p := self.known_parting(prompt, b)) is not None]
            if found:
                return min(found, key=lambda parting: parting.index)
        return None

    @property
    def first_divergence(self) -> Parting | None:
        """Where a column parts from the first one: on the earliest prompt, at the earliest token; None: nowhere."""
        found = self.known_first()
        return None if found is None else self.parting(found.prompt, found.columns[1])

    def diff(
        self, prompt: int = 0, b: int | str = 1, a: int | str = 0, *, unit: Literal["word", "token"] = "word"
    ) -> list[Change]:
        """What two answers have in common, stretch by stretch; [] when one of them is not there."""
        one, other = (self.columns[self._index(i)].result(prompt) for i in (a, b))
        if one is None or other is None:
            return []
        if unit == "token":
            return diff([token.text for token in one.tokens], [token.text for token in other.tokens])
        return diff(words(one.text), words(other.text))

    @property
    def conditions(self) -> str:
        """How the answers were taken, and whether their speeds may be compared."""
        if not self.together:
            return "one after the other, so speeds compare"
        return "together: speeds share one machine, so they do not compare"

    # ---- the thread

    def _run(self) -> None:
        try:
            self._turns.run()
            self.state = "testing"
            self._bell.ring()
            self._end_bell.ring()
            if self._wants_causes:
                self._test()
        finally:
            self.state = "ended"
            self._bell.ring()
            self._end_bell.ring()

    def _test(self) -> None:
        """Why each column parts from the first one, on the first prompt where it does."""
        for b in range(1, len(self.columns)):
            for prompt in range(len(self.asked.prompts)):
                if self._is_stopped:
                    return
                if where(self.columns, (0, b), prompt) is not None:
                    self.parting(prompt, b)
                    self._bell.ring()
                    break

    def _index(self, column: int | str) -> int:
        if isinstance(column, str):
            names = self.names
            if column not in names:
                raise RequestError(unknown("column", column, names))
            return names.index(column)
        if not -len(self.columns) <= column < len(self.columns):
            raise RequestError(f"There is no column {column}: they are counted from 0 to {len(self.columns) - 1}.")
        return column % len(self.columns)

    def wait_news(self, timeout_s: float) -> None:
        """Until something changed, or so long; for views."""
        self._bell.wait(lambda: False, timeout_s)
