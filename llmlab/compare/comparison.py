"""Comparison: what compare() returns. The answers of all columns, what people thought of them, and what is taken away.

This file must not know engines, nor how anything looks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.compare import tables
from llmlab.compare.answers import Answers
from llmlab.compare.columns import Column
from llmlab.compare.prompt_sets import PromptSet
from llmlab.compare.votes import LETTERS, TIE, Vote, WinRate, orders, win_rates
from llmlab.errors import RequestError, unknown

if TYPE_CHECKING:
    import pandas as pd


class Comparison(Answers):
    """The columns side by side. `names` are the columns, `results[i][j]` is what column j said to prompt i."""

    def __init__(
        self,
        columns: Sequence[Column],
        asked: PromptSet,
        *,
        together: bool = False,
        at_once: int = 1,
        causes: bool = True,
        blind: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(columns, asked, together=together, at_once=at_once, causes=causes, blind=blind)
        self.votes: list[Vote] = []
        # For each prompt, which column stands in which place on screen; [] when names were never hidden.
        self.orders = orders(len(asked.prompts), len(self.columns), seed) if blind else []

    # ---- blind mode

    def order(self, prompt: int) -> list[int]:
        """Which column stands in which place on screen: drawn for each prompt while names are hidden."""
        if not self.is_blind:
            return list(range(len(self.columns)))
        return self.orders[prompt]

    def vote(self, choice: str, prompt: int = 0) -> None:
        """ "A", "B", ... or "tie": which answer to this prompt is the best. A later vote replaces an earlier one.

        Raises: RequestError when names are known already, for a letter that is not there, or a prompt without answers.
        """
        if not self.is_blind:
            raise RequestError("The names are known, so a vote would not be blind. Compare anew with blind=True.")
        letters = LETTERS[: len(self.columns)]
        if choice.upper() not in letters and choice.lower() != TIE:
            raise RequestError(unknown("choice", choice, [*letters, TIE]))
        if not 0 <= prompt < len(self.asked.prompts):
            raise RequestError(
                f"There is no prompt {prompt}: they are counted from 0 to {len(self.asked.prompts) - 1}."
            )
        if any(column.result(prompt) is None for column in self.columns):
            raise RequestError(f"Prompt {prompt} has not been answered by all yet. Vote when the answers are there.")
        place = None if choice.lower() == TIE else letters.index(choice.upper())
        self.votes.append(Vote(prompt, None if place is None else self.order(prompt)[place]))
        self._bell.ring()

    def reveal(self) -> list[str]:
        """Say who is who; no more votes are taken. The names of the columns."""
        self.is_blind = False
        self._bell.ring()
        return self.names

    def win_rates(self) -> list[WinRate]:
        """How often each column won, with Wilson intervals. Raises: RequestError while names are hidden."""
        if self.is_blind:
            raise RequestError("The names are hidden while votes are taken. Type `.reveal()` first.")
        return win_rates(self.votes, self.names)

    # ---- to take away

    def table(self) -> pd.DataFrame:
        """One row for each prompt and column: answer, TTFT, tok/s, tokens, how it ended, where it parts, memory.

        While names are hidden, so are the figures that could give them away.
        """
        import pandas as pd

        return pd.DataFrame(tables.rows(self), columns=list(tables.COLUMNS))

    def summary(self) -> pd.DataFrame:
        """One row a column: medians over all prompts."""
        import pandas as pd

        return pd.DataFrame(tables.summary_rows(self), columns=list(tables.SUMMARY))

    def to_csv(self, path: str | Path) -> Path:
        """table() as a file."""
        self.table().to_csv(path, index=False)
        return Path(path)

    def to_json(self, path: str | Path) -> Path:
        """Everything: settings, answers with token ids, partings, votes."""
        return tables.write_json(self, Path(path))

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """One file to look at, without kernel or network."""
        written: Path = self.view.to_html(path, theme=theme)
        return written

    @property
    def view(self) -> Any:
        """The columns, live while they fill: llmlab.side_by_side(comparison)."""
        return sys.modules["llmlab"].side_by_side(self)  # this part does not know views; the facade does

    def __repr__(self) -> str:
        return tables.text(self)

    def _repr_html_(self) -> str:
        html: str = self.view.html()
        return html

    def _ipython_display_(self) -> None:
        self.view._ipython_display_()
