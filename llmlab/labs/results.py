"""What a check said: points, reasons and pictures, to be read in a notebook, in a terminal, by a grader.

This file must not know how anything was checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from llmlab.cards import Card, with_code
from llmlab.labs.description import Picture
from llmlab.labs.sentences import columns, say
from llmlab.language import tr


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check. An empty reason: it passed."""

    question_id: str
    name: str
    points: int
    reason: str = ""
    is_hidden: bool = False
    picture: Picture | None = None

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def earned(self) -> int:
        return self.points if self.passed else 0

    def values(self) -> dict[str, Any]:
        """For a record on disk."""
        return {"name": self.name, "points": self.points, "reason": self.reason, "picture": self.picture}


@dataclass(frozen=True, slots=True)
class Results:
    """Checks of one question or of several, in order; `notes` are what was revealed and observed beside them."""

    lab_title: str
    checks: tuple[CheckResult, ...]
    notes: tuple[str, ...] = ()
    # Points of the hidden checks of these questions, which did not run.
    hidden_points: int = 0
    # What the student's code printed, cut.
    output: str = field(default="", repr=False)

    @property
    def earned(self) -> int:
        return sum(check.earned for check in self.checks)

    @property
    def points(self) -> int:
        return sum(check.points for check in self.checks)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def of(self, question_id: str) -> tuple[CheckResult, ...]:
        return tuple(check for check in self.checks if check.question_id == question_id)

    def reasons(self) -> dict[str, str]:
        """`Q3 free` -> why it failed."""
        return {f"{check.question_id} {check.name}": check.reason for check in self.checks if not check.passed}

    def __repr__(self) -> str:
        from llmlab.labs.pictures import text_of

        shown = [text_of(check.picture) for check in self._pictured()]
        return "\n".join([repr(self._card()), *shown])

    def _repr_html_(self) -> str:
        from llmlab.labs.pictures import html_of

        shown = "".join(f"<p><b>{escape(tr(c.name))}</b></p>{html_of(c.picture)}" for c in self._pictured())
        return self._card()._repr_html_() + shown

    def _card(self) -> Card:
        points = say("points", earned=self.earned, points=self.points)
        title = say("results_title", lab=tr(self.lab_title), points=points) if self.checks else ""
        names = columns("results_columns") if self.checks else ()
        return Card(title, names, tuple(self._rows()), tuple(self._all_notes()), max_width=600)

    def _rows(self) -> Iterable[tuple[object, ...]]:
        for check in self.checks:
            name = f"{check.question_id} {tr(check.name)}"
            points = say("earned_of", earned=check.earned, points=check.points)
            yield ("✓" if check.passed else "✕", name, points, check.reason)

    def _all_notes(self) -> Iterable[str]:
        yield from self.notes
        if self.checks and self.passed:
            yield say("all_right")
        if self.hidden_points:
            yield say("hidden_later", points=self.hidden_points)

    def _pictured(self) -> list[CheckResult]:
        return [check for check in self.checks if check.picture is not None]


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence that is the value of a line."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<div>{'<br>'.join(with_code(line) for line in self.text.splitlines())}</div>"
