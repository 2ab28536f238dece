"""The report of a student's work as one HTML page, from the record alone: no script, no second file.

This file must not know notebooks or processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import NamedTuple

from llmlab.bench.page import framed, scrolled, whole_page
from llmlab.cards import with_code
from llmlab.labs.description import Lab
from llmlab.labs.pictures import html_of
from llmlab.labs.record import Event, Record, shown_time
from llmlab.labs.sentences import columns, say

# Of 100: the rest is for code.
PREDICTION_SCORE, REFLECTION_SCORE = 6, 4


class Score(NamedTuple):
    """Points of 100; hidden checks have not run, so that `possible` is less."""

    predictions: float
    reflection: float
    raw: float
    raw_possible: float

    @property
    def total(self) -> float:
        return self.predictions + self.reflection + self.raw

    @property
    def possible(self) -> float:
        return PREDICTION_SCORE + REFLECTION_SCORE + self.raw_possible


def score_of(lab: Lab, record: Record) -> Score:
    """Predictions count when they were made in time, right or not; of each question the last check counts."""
    in_time = [name for name in lab.predictions if any(one["in_time"] for one in record.predictions(name))]
    raw_total = sum(check.points for q in lab.questions if not q.is_reflection for check in q.checks)
    raw_public = sum(c.points for q in lab.questions if not q.is_reflection for c in q.checks if not c.is_hidden)
    earned = {q.question_id: sum(c["points"] for c in last_checks(record, q.question_id) if not c["reason"]) for q in
              lab.questions}  # fmt: skip
    weight = (100 - PREDICTION_SCORE - REFLECTION_SCORE) / raw_total
    return Score(
        PREDICTION_SCORE * len(in_time) / max(1, len(lab.predictions)),
        sum(earned[q.question_id] for q in lab.questions if q.is_reflection),
        weight * sum(earned[q.question_id] for q in lab.questions if not q.is_reflection),
        weight * raw_public,
    )


def last_checks(record: Record, question_id: str) -> list[Event]:
    """What the last check of a question said; [] when there was none."""
    events = record.events("check", question_id)
    return list(events[-1]["checks"]) if events else []


def page(lab: Lab, record: Record) -> str:
    score = score_of(lab, record)
    parts = _numbers(score)
    head = [
        f"<h2>{escape(lab.title)}</h2>",
        f"<p><b>{say('report_score', score=score.total, possible=score.possible)}</b></p>",
        f'<p class="llmlab-quiet">{say("report_score_parts", **parts)}</p>',
        f'<p class="llmlab-quiet">{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}</p>',
    ]
    return whole_page(
        lab.title, framed("".join([*head, _predictions(lab, record), _results(lab, record), _hints(lab, record)]))
    )


def _numbers(score: Score) -> dict[str, float]:
    return {
        "predictions": score.predictions,
        "reflection": score.reflection,
        "raw": score.raw,
        "raw_possible": score.raw_possible,
    }


def _predictions(lab: Lab, record: Record) -> str:
    rows = []
    for name, prediction in lab.predictions.items():
        revealed = record.events("reveal", name)
        truth = _shown(revealed[-1]["truth"]) if revealed else "–"
        made = record.predictions(name)
        for one in made or [{"value": say("report_none"), "at": "–", "in_time": True}]:
            late = "" if one["in_time"] else f" ({say('report_late')})"
            rows.append((name, prediction.asks, f"{_shown(one['value'])}{late}", shown_time(one["at"]), truth))
    return f"<h2>{say('report_predictions')}</h2>{_table(columns('predictions_columns'), rows)}"


def _results(lab: Lab, record: Record) -> str:
    parts = [f"<h2>{say('report_results')}</h2>"]
    for question in lab.questions:
        if not any(not check.is_hidden for check in question.checks):
            continue
        parts.append(f"<h3>{question.question_id} {escape(question.title)}</h3>")
        found = last_checks(record, question.question_id)
        if not found:
            parts.append(f"<p>{say('report_unchecked', question=question.question_id)}</p>")
            continue
        rows = [
            (
                "✕" if c["reason"] else "✓",
                c["name"],
                say("earned_of", earned=0 if c["reason"] else c["points"], points=c["points"]),
                c["reason"],
            )
            for c in found
        ]
        parts.append(_table(columns("results_columns"), rows))
        parts += [html_of(c["picture"]) for c in found if c["picture"]]
    return "".join(parts)


def _hints(lab: Lab, record: Record) -> str:
    counts = {q.question_id: len(record.events("hint", q.question_id)) for q in lab.questions}
    used = [
        (name, say("earned_of", earned=count, points=len(lab.question(name).hints)))
        for name, count in counts.items()
        if count
    ]
    shown = _table(columns("hints_columns"), used) if used else f"<p>{say('report_no_hints')}</p>"
    return f"<h2>{say('report_hints')}</h2>{shown}"


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f'<th class="llmlab-word">{escape(name)}</th>' for name in names)
    lines = "".join(
        f"<tr>{''.join(f'<td class=llmlab-prose>{with_code(str(value))}</td>' for value in row)}</tr>" for row in rows
    )
    return scrolled(f"<tr>{head}</tr>{lines}")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
