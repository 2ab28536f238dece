"""The record of a student's work on a lab: one JSON line an event, only ever added to.

It stands beside the notebook: predictions with their time, what was revealed, hints taken, results. This file must not
know any lab.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

SUFFIX = ".record.jsonl"

Event = dict[str, Any]


def shown_time(at: str) -> str:
    """A time of a record as a person reads it.

    >>> shown_time("2026-01-31T09:05:00+00:00")
    '2026-01-31 09:05:00'
    """
    return at[:19].replace("T", " ")


@dataclass(frozen=True, slots=True)
class Record:
    path: Path

    def add(self, event: str, **values: Any) -> Event:
        """Write an event down, on the disk before this returns; the event with its time."""
        line: Event = {"at": datetime.now().astimezone().isoformat(timespec="seconds"), "event": event, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return line

    def events(self, event: str, question_id: str | None = None) -> list[Event]:
        """All of one kind, first to last; of one question. A line that was cut off half-way is passed over."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if one.get("event") == event and question_id in (None, one.get("question")):
                found.append(one)
        return found

    def predictions(self, question_id: str) -> list[Event]:
        """In order; `in_time`: it was made before the cell that shows the truth had run."""
        revealed = self.events("reveal", question_id)
        first = min((one["number"] for one in revealed), default=None)
        made = self.events("predict", question_id)
        return [
            {**one, "in_time": not one.get("has_run") and (first is None or i < first)} for i, one in enumerate(made)
        ]
