"""What a student reads about his graded submission, as one HTML page: points, reasons, pictures, the code.

This file must not know how anything was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from llmlab.bench.page import framed, whole_page
from llmlab.labs.description import Lab
from llmlab.labs.pictures import html_of
from llmlab.labs.report_page import table
from llmlab.labs.results import Results
from llmlab.labs.sentences import columns, say
from llmlab.language import tr

SHOWN_OUTPUT = 4000


def page(lab: Lab, graded: Mapping[str, Any], results: Results, source: str) -> str:
    """`graded`: see grading.py."""
    title = f"{tr(lab.title)}: {graded['student']}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in graded["notes"])
    parts = say("graded_parts", predictions=graded["predictions"], reflection=graded["reflection"], raw=graded["code"])
    content = [
        f"<h2>{escape(title)}</h2>",
        f"<p><b>{say('graded_score', score=graded['score'])}</b></p>",
        f'<p class="llmlab-quiet">{parts}</p>',
        f"<h2>{say('graded_notes')}</h2><ul>{notes}</ul>" if notes else "",
        f"<h2>{say('report_results')}</h2>{_results(results)}",
        f"<h2>{say('graded_source')}</h2>{_listing(source)}" if source.strip() else "",
        f"<h2>{say('graded_output')}</h2>{_block(results.output[:SHOWN_OUTPUT])}" if results.output.strip() else "",
    ]
    return whole_page(title, framed("".join(content)))


def _results(results: Results) -> str:
    rows = [
        (
            "✓" if check.passed else "✕",
            f"{check.question_id} {tr(check.name)}",
            say("earned_of", earned=check.earned, points=check.points),
            check.reason,
        )
        for check in results.checks
    ]
    pictures = [f"<h3>{escape(tr(c.name))}</h3>{html_of(c.picture)}" for c in results.checks if c.picture is not None]
    return "".join([table(columns("results_columns"), rows), *pictures])


def _listing(source: str) -> str:
    """With the line numbers that the reasons name."""
    return _block("\n".join(f"{number:4}  {line}" for number, line in enumerate(source.splitlines(), 1)))


def _block(text: str) -> str:
    return f'<div class="llmlab-scroll"><pre>{escape(text)}</pre></div>'
