"""A report as one HTML file: no script, no second file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from llmlab.bench.page import body, bullets, framed, scrolled, whole_page
from llmlab.cards import with_code
from llmlab.report import content
from llmlab.report.claims import rows_of

if TYPE_CHECKING:
    from llmlab.report.making import Report

_MARKS = {"holds here": ("●", "good"), "does not hold here": ("✕", "bad"), "measured": ("○", "quiet")}


def page(report: Report) -> str:
    return whole_page(content.title(report), html(report))


def html(report: Report) -> str:
    """The report as a piece of page."""
    choice = report.choice
    parts = [f"<h2>{escape(content.title(report))}</h2><p><b>{with_code(choice.sentence)}</b></p>"]
    parts += [_said("Why", choice.reasons), _said("What would speak for another", choice.conditions)]
    parts += ["<h2>Side by side</h2>", _table(content.comparison(report))]
    parts.append(f'<p class="llmlab-quiet">{content.LEGEND}</p>')
    parts += ["<h2>Under load</h2>", body(report.result), bullets([*report.result.notes(), *report.notes])]
    parts += ["<h2>Engines</h2>", _table(content.engines(report))]
    if (parity := content.parity_table(report)) is not None and report.manifest is not None:
        parts += ["<h2>Is it the same model?</h2>", f"<p>{escape(report.manifest.verdict)}</p>", _table(parity)]
    if report.claims:
        parts += ["<h2>What is said about these engines, and what this run says</h2>", _claims(report)]
    parts += [_section("How it was measured", content.method(report)), _section("Machine", content.machine(report))]
    return framed("".join(parts))


def _claims(report: Report) -> str:
    rows = ""
    for topic, claim, verdict, figure in rows_of(report.claims):
        mark, kind = _MARKS[verdict]
        cells = (topic, claim, None, figure)
        said = f'<td class="llmlab-word llmlab-{kind}">{mark} {verdict}</td>'
        rows += (
            "<tr>"
            + "".join(said if c is None else f'<td class="llmlab-prose">{escape(c)}</td>' for c in cells)
            + "</tr>"
        )
    head = "".join(f'<th class="llmlab-word">{name}</th>' for name in ("row", "claim", "verdict", "figure of this run"))
    return scrolled(f"<tr>{head}</tr>{rows}")


def _table(table: content.Table) -> str:
    columns, rows = table
    head = "".join(f'<th class="llmlab-word">{escape(name)}</th>' for name in columns)
    lines = "".join(
        f"<tr>{''.join(f'<td class=llmlab-prose>{escape(value)}</td>' for value in row)}</tr>" for row in rows
    )
    return scrolled(f"<tr>{head}</tr>{lines}")


def _section(name: str, lines: Sequence[str]) -> str:
    return f"<h2>{escape(name)}</h2>{bullets(lines)}"


def _said(name: str, lines: Sequence[str]) -> str:
    """Lines below a name; "" without any."""
    return f"<p>{escape(name)}</p>{bullets(lines)}" if lines else ""
