"""The report of a student's work as one HTML page, from the record alone: no script, no second file.

This file must not know notebooks or processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from llmlab.bench.page import framed, scrolled, whole_page
from llmlab.cards import with_code
from llmlab.labs.description import Lab
from llmlab.labs.pictures import html_of
from llmlab.labs.record import Event, Record, shown_time
from llmlab.labs.scores import Score, score_for
from llmlab.labs.sentences import columns, say
from llmlab.language import tr

SHORT = 20  # characters


def score_of(lab: Lab, record: Record) -> Score:
    """Predictions count when they were made in time; of each question the last check counts."""
    earned = {q.question_id: sum(c["points"] for c in last_checks(record, q.question_id) if not c["reason"]) for q in
              lab.questions}  # fmt: skip
    return score_for(lab, predicted_in_time(lab, record), earned, with_hidden=False)


def predicted_in_time(lab: Lab, record: Record) -> list[str]:
    return [name for name in lab.predictions if any(one["in_time"] for one in record.predictions(name))]


def last_checks(record: Record, question_id: str) -> list[Event]:
    """What the last check of a question said; [] when there was none."""
    events = record.events("check", question_id)
    return list(events[-1]["checks"]) if events else []


def page(lab: Lab, record: Record) -> str:
    score = score_of(lab, record)
    parts = _numbers(score)
    head = [
        f"<h2>{escape(tr(lab.title))}</h2>",
        f"<p><b>{say('report_score', score=score.total, possible=score.possible)}</b></p>",
        f'<p class="llmlab-quiet">{say("report_score_parts", **parts)}</p>',
        f'<p class="llmlab-quiet">{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}</p>',
    ]
    return whole_page(
        tr(lab.title), framed("".join([*head, _predictions(lab, record), _results(lab, record), _hints(lab, record)]))
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
            rows.append((name, tr(prediction.asks), f"{_shown(one['value'])}{late}", shown_time(one["at"]), truth))
    return f"<h2>{say('report_predictions')}</h2>{table(columns('predictions_columns'), rows)}"


def _results(lab: Lab, record: Record) -> str:
    parts = [f"<h2>{say('report_results')}</h2>"]
    for question in lab.questions:
        if not any(not check.is_hidden for check in question.checks):
            continue
        parts.append(f"<h3>{question.question_id} {escape(tr(question.title))}</h3>")
        found = last_checks(record, question.question_id)
        if not found:
            parts.append(f"<p>{say('report_unchecked', question=question.question_id)}</p>")
            continue
        rows = [
            (
                "✕" if c["reason"] else "✓",
                tr(c["name"]),
                say("earned_of", earned=0 if c["reason"] else c["points"], points=c["points"]),
                c["reason"],
            )
            for c in found
        ]
        parts.append(table(columns("results_columns"), rows))
        parts += [html_of(c["picture"]) for c in found if c["picture"]]
    return "".join(parts)


def _hints(lab: Lab, record: Record) -> str:
    counts = {q.question_id: len(record.events("hint", q.question_id)) for q in lab.questions}
    used = [
        (name, say("earned_of", earned=count, points=len(lab.question(name).hints)))
        for name, count in counts.items()
        if count
    ]
    shown = table(columns("hints_columns"), used) if used else f"<p>{say('report_no_hints')}</p>"
    return f"<h2>{say('report_hints')}</h2>{shown}"


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Long texts are broken into lines, short ones are not."""
    head = "".join(f'<th class="llmlab-word">{escape(name)}</th>' for name in names)
    lines = "".join(f"<tr>{''.join(_cell(str(value)) for value in row)}</tr>" for row in rows)
    return scrolled(f"<tr>{head}</tr>{lines}")


def _cell(text: str) -> str:
    kind = "llmlab-word" if len(text) <= SHORT else "llmlab-prose"
    return f'<td class="{kind}">{with_code(text)}</td>'


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
