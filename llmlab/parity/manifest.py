"""The parity manifest: one line for each thing that two engines must agree on, with both values and a verdict.

This file must not know how the values are taken (settings, check) or shown (page).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmlab.parity.distances import Bound, Distance
from llmlab.parity.divergence import Divergence

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["equal", "differs", "within bound", "beyond bound", "noted", "not comparable"]
BAD: tuple[Verdict, ...] = ("differs", "beyond bound")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. A value is None where there is one figure for both sides, or none: then `note` has it, or says why."""

    section: str
    name: str
    a: str | None
    b: str | None
    verdict: Verdict
    note: str = ""
    # False: the two engines may differ in it and still be the same model.
    is_required: bool = True


def row(section: str, name: str, values: Iterable[str | None], note: str = "", *, is_required: bool = True) -> Row:
    """A line whose two values are compared as they are; "not comparable" when one of them is unknown."""
    a, b = values
    verdict: Verdict = "not comparable" if a is None or b is None else "equal" if a == b else "differs"
    return Row(section, name, a, b, verdict, note, is_required)


@dataclass(frozen=True)
class Manifest:
    """What two engines agree on. `ok`: the same model, as exactly as their formats allow."""

    a: str
    b: str
    rows: tuple[Row, ...]
    bound: Bound
    # None when their tokens cannot be compared
    distance: Distance | None = None
    # of the first probe whose greedy answers differ
    divergence: Divergence | None = None

    @property
    def ok(self) -> bool:
        """True when every required line is equal or within its bound."""
        return not self.failures

    @property
    def failures(self) -> tuple[Row, ...]:
        """The required lines that differ, lie beyond their bound or cannot be compared."""
        bad = (*BAD, "not comparable")
        return tuple(r for r in self.rows if r.is_required and r.verdict in bad)

    @property
    def verdict(self) -> str:
        """One sentence."""
        kind = self.bound.precision
        if self.ok:
            return f"The same model: the same tokens go in, and the logits are as close as {kind} allows."
        return f"Not proven to be the same: {', '.join(r.name for r in self.failures)}."

    def table(self) -> pd.DataFrame:
        """One row a line: section, name, the value of either engine, verdict, note."""
        import pandas as pd

        columns = ["section", "name", self.a, self.b, "verdict", "note"]
        rows = [(r.section, r.name, r.a or "–", r.b or "–", r.verdict, r.note) for r in self.rows]
        return pd.DataFrame(rows, columns=columns)

    def __getitem__(self, name: str) -> Row:
        """The line of that name. Raises: KeyError."""
        found = next((r for r in self.rows if r.name == name), None)
        if found is None:
            raise KeyError(f"no line {name!r}; there are: {', '.join(r.name for r in self.rows)}")
        return found

    def __repr__(self) -> str:
        from llmlab.parity.page import manifest_text

        return manifest_text(self)

    def _repr_html_(self) -> str:
        from llmlab.parity.page import manifest_html

        return manifest_html(self)
