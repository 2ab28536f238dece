"""A report as Markdown, for a repository or a mail. The curves are in the HTML only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmlab.bench.page import load_table
from llmlab.report import content
from llmlab.report.claims import rows_of

if TYPE_CHECKING:
    from llmlab.report.making import Report


def markdown(report: Report) -> str:
    choice = report.choice
    parts = [f"# {content.title(report)}", f"**{choice.sentence}**"]
    parts += _list("Why:", choice.reasons) + _list("What would speak for another:", choice.conditions)
    parts += ["## Side by side", _table(content.comparison(report))]
    parts += [content.LEGEND]
    parts += ["## Under load", _table(load_table(report.result))]
    parts += _list("", [*report.result.notes(), *report.notes])
    parts += ["## Engines", _table(content.engines(report))]
    if (parity := content.parity_table(report)) is not None and report.manifest is not None:
        parts += ["## Is it the same model?", report.manifest.verdict, _table(parity)]
    if report.claims:
        heads = ("row", "claim", "verdict", "figure of this run")
        parts += [
            "## What is said about these engines, and what this run says",
            _table((heads, rows_of(report.claims))),
        ]
    parts += ["## How it was measured", *_list("", content.method(report))]
    parts += ["## Machine", *_list("", content.machine(report))]
    # Names of engines and models are data, also where Markdown may hold HTML.
    return "\n\n".join(parts).replace("<", "&lt;") + "\n"


def _table(table: tuple[tuple[str, ...], Iterable[tuple[object, ...]]]) -> str:
    columns, rows = table
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    """No pipe, no line break gets through."""
    return " ".join(str(value).replace("|", "\\|").split())


def _list(name: str, lines: Iterable[str]) -> list[str]:
    items = "\n".join(f"- {' '.join(line.split())}" for line in lines)
    return [*([name] if name else []), items] if items else []
