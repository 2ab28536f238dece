"""The frozen twin of a comparison: texts, figures, marks and causes as a piece of page without scripts.

It carries its look in style attributes, the only ones that every reader of notebooks keeps; what is marked is told by a
sign and a frame, so it can be read without them. This file must not know widgets or notebooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import exp
from typing import Any

from llmlab.cards import short_text
from llmlab.compare import Comparison
from llmlab.compare.tables import SUMMARY, summary_rows
from llmlab.views.compare_data import Data, all_answered, cell_data, head_data, num_shown, parting_data
from llmlab.views.twin_tokens import class_of
from llmlab.views.twin_words import percent

MAX_TEXTS = 20  # prompts whose answers are written out; the table below has all that a page shows
_HEADINGS = {
    "ttft_s": "TTFT, s", "tokens_per_s": "tok/s", "num_tokens": "tokens", "num_answers": "answers",
    "num_equal": "equal", "num_parted": "parted", "rss_bytes": "memory, MB", "disk_bytes": "on disk, MB",
}  # fmt: skip
_SHORT = 110  # characters of a prompt that is folded
_QUIET = "opacity:.75"
_MARK = "font-weight:700;border:2px solid currentColor;border-radius:3px;padding:0 3px;white-space:nowrap"
_UNENDED = "The comparison had not ended when this notebook was saved: what came later is missing."
_CELL = "text-align:left;vertical-align:top;padding:3px 12px 3px 0"
_ROOT = "font:13px/1.45 var(--jp-ui-font-family,sans-serif);font-variant-numeric:tabular-nums;text-align:left"


def twin_html(comparison: Comparison, mode: str = "text") -> str:
    """All of it; of a large set the answers to the first MAX_TEXTS prompts, and one line for each of the others."""
    head, shown = head_data(comparison), num_shown(comparison)
    places = range(len(comparison.columns))
    cells = [[cell_data(comparison, i, j) for j in places] for i in range(min(shown, MAX_TEXTS))]
    parts = [_title(head)]
    if not comparison.done:
        parts.append(f"<p>{_UNENDED}</p>")  # of a notebook that is saved now, and whose kernel is gone
    if shown == 1:
        parts.append(_answers(comparison, head, cells[0], 0, mode))
    else:
        parts.append(_summary(comparison))
        first = comparison.known_first()
        at = None if first is None else first.prompt
        parts += [_folded(comparison, head, row, i, mode, is_open=i == at) for i, row in enumerate(cells)]
    parts += [f"<p style='{_QUIET}'>{escape(note)}</p>" for note in head["notes"]]
    if len(cells) < shown:
        rest = f"The answers to the first {len(cells)} prompts are written out; `.table()` and `.to_html()` have more."
        parts.append(f"<p style='{_QUIET}'>{escape(rest)}</p>")
    parts += [f"<p>{escape(_rate(rate))}</p>" for rate in head["rates"]]
    return f"<div style='{_ROOT}'>{''.join(parts)}</div>"


def _title(head: Data) -> str:
    return (
        f"<div style='margin-bottom:6px'><b style='font-size:15px'>{escape(head['title'])}</b> "
        f"<span style='{_QUIET}'>{escape(head['subtitle'])}</span></div>"
    )


def _folded(comparison: Comparison, head: Data, cells: list[Data], prompt: int, mode: str, *, is_open: bool) -> str:
    """One prompt of many."""
    parted = [f"{column['name']} ◆ {cell['differs_at']}" for column, cell in zip(head["columns"], cells, strict=True)
              if cell.get("differs_at") is not None]  # fmt: skip
    is_equal = not comparison.is_blind and all_answered(comparison, prompt)
    told = ", ".join(parted) or ("equal" if is_equal else "")
    words = f"{prompt + 1}. {head['prompts'][prompt]}"
    return (
        f"<details{' open' if is_open else ''} style='margin:6px 0'><summary>{escape(short_text(words, _SHORT))} "
        f"<span style='{_QUIET}'>{escape(told)}</span></summary>"
        f"{_answers(comparison, head, cells, prompt, mode)}</details>"
    )


def _answers(comparison: Comparison, head: Data, cells: list[Data], prompt: int, mode: str) -> str:
    columns = "".join(
        _column(column, cell, _marked(cells, j, mode), is_blind=comparison.is_blind)
        for j, (column, cell) in enumerate(zip(head["columns"], cells, strict=True))
    )
    wide = f"display:grid;grid-template-columns:repeat({min(4, len(cells))},minmax(0,1fr));gap:18px"
    found = [comparison.known_parting(prompt, b) for b, cell in enumerate(cells) if cell.get("differs_at") is not None]
    partings = "".join(_parting(parting_data(parting)) for parting in found if parting is not None)
    asked = f"<p style='font-size:15px;white-space:pre-wrap;margin:4px 0 10px'>{escape(head['prompts'][prompt])}</p>"
    return f"{asked}<div style='{wide}'>{columns}</div>{partings}"


def _column(column: Data, cell: Data, text: str, *, is_blind: bool) -> str:
    error = column["error"] or cell["error"]
    failed = f"<p style='border-left:3px solid currentColor;padding-left:8px'>✕ {escape(error)}</p>" if error else ""
    figures = "" if is_blind else " · ".join(_figures(column, cell))
    return (
        "<div style='border-top:3px solid currentColor;padding-top:6px;min-width:0'>"
        f"<div><b style='font-size:15px'>{escape(column['name'])}</b> "
        f"<span style='{_QUIET}'>{escape(column['detail'])}</span></div>"
        f"<div style='font-size:15px;line-height:1.6;white-space:pre-wrap;overflow-wrap:anywhere;margin:6px 0 10px'>"
        f"{text}</div>{failed}<div>{figures}</div></div>"
    )


def _figures(column: Data, cell: Data) -> Iterable[str]:
    """What stands below an answer; a dash for what was not measured."""
    ttft_s, speed = cell.get("ttft_s"), cell.get("tokens_per_s")
    yield f"<b>{'–' if ttft_s is None else f'{1000 * ttft_s:.0f} ms'}</b> first token"
    yield f"<b>{'–' if speed is None else f'{speed:.1f}'}</b> tok/s"
    yield f"<b>{len(cell['tokens'])}</b> tokens"
    state = str(cell["state"])
    yield escape({"length": "cut at max_tokens", "stop": "finished"}.get(state, state))
    if column["memory"]:
        yield f"<b>{escape(column['memory'])}</b> memory"
    if cell.get("differs_at") is not None:
        yield f"<b>◆ {cell['differs_at']}</b> differs at token"


def _marked(cells: list[Data], j: int, mode: str) -> str:
    """The answer as HTML: first different tokens framed, words that differ underlined, or tokens by likelihood."""
    cell = cells[j]
    if mode == "logprobs":
        return "".join(_heat(text, logprob) for text, logprob in cell["tokens"])
    text = "".join(text for text, _ in cell["tokens"])
    if mode == "diff":
        spans: list[list[int]] = next((c["changed"][0] for c in cells[1:] if c.get("changed")), []) if j == 0 else []
        spans = cell["changed"][1] if j and cell.get("changed") else spans
        return _spans(text, spans)
    at = {c["differs_at"] for c in cells[1:] if c.get("differs_at") is not None} if j == 0 else {cell.get("differs_at")}
    marks = {index for index in at if index is not None}
    parts = [_mark(text) if i in marks else escape(text) for i, (text, _) in enumerate(cell["tokens"])]
    if len(cell["tokens"]) in marks:
        parts.append(_mark("(end)"))
    return "".join(parts)


def _mark(text: str) -> str:
    body = text.lstrip(" ")
    return f"{text[: len(text) - len(body)]}<span style='{_MARK}'>◆ {escape(body.replace(chr(10), '↵')) or '□'}</span>"


def _spans(text: str, spans: list[list[int]]) -> str:
    parts, at = [], 0
    for first, end in spans:
        parts.append(escape(text[at:first]))
        parts.append(f"<u style='font-weight:700;text-underline-offset:3px'>{escape(text[first:end])}</u>")
        at = end
    return "".join([*parts, escape(text[at:])])


def _heat(text: str, logprob: float | None) -> str:
    """A token with its probability, and the wider a line under it the less likely it was."""
    if logprob is None:
        return escape(text)
    kind = class_of({"logprob": logprob})
    line = f" style='border-bottom:{kind}px solid #ee9440'" if kind else ""
    return f"<span title='{percent(exp(logprob))}'{line}>{escape(text)}</span>"


def _parting(parting: Data) -> str:
    """Both distributions as a table, and the causes."""
    a, b = (escape(name) for name in parting["names"])
    says = (
        f"{a} says <code>{escape(parting['tokens'][0])}</code>, {b} says <code>{escape(parting['tokens'][1])}</code>."
    )
    why = f"Cause, tested: <b>{escape(parting['cause'])}</b>." if parting["cause"] else "No tested cause explains it."
    if parting["note"]:
        why = escape(parting["note"])
    gap = "" if parting["gap"] is None else f" Gap in {a}: {100 * parting['gap']:.1f} points, measured."
    kl = "" if parting["kl"] is None else f" KL at least {parting['kl']:.3f} nats, measured.{gap}"
    rows = "".join(
        f"<tr><td style='{_CELL}'><code>{escape(text.replace(' ', '·'))}</code></td>"
        f"<td style='{_CELL}'>{percent(p)}{' ◆' if own_a else ''}</td>"
        f"<td style='{_CELL}'>{percent(q)}{' ◆' if own_b else ''}</td></tr>"
        for text, p, q, own_a, own_b in parting["rows"]
    )
    header = f"<tr><th style='{_CELL}'>token</th><th style='{_CELL}'>{a}</th><th style='{_CELL}'>{b}</th></tr>"
    table = f"<table style='font-size:13px'><thead>{header}</thead><tbody>{rows}</tbody></table>" if rows else ""
    causes = "".join(f"<li>{escape(name)}: {told} ({escape(found)})</li>" for name, told, found in parting["causes"])
    listed = f"<details><summary>All causes, as tested</summary><ul>{causes}</ul></details>" if causes else ""
    return (
        f"<div style='margin-top:12px'><b style='font-size:15px'>First difference: token {parting['index']}</b>"
        f"<div>{says} {why}{kl} {escape(parting['verdict'])}</div>{table}{listed}</div>"
    )


def _summary(comparison: Comparison) -> str:
    """Medians of each column over all prompts."""
    header = "".join(f"<th style='{_CELL}'>{_HEADINGS.get(name, name)}</th>" for name in SUMMARY)
    rows = "".join(
        "<tr>"
        + "".join(f"<td style='{_CELL}'>{_value(name, v)}</td>" for name, v in zip(SUMMARY, row, strict=True))
        + "</tr>"
        for row in summary_rows(comparison)
    )
    return (
        f"<table style='font-size:13px'><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    )


def _value(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name.endswith("_bytes"):
        return f"{value / 1e6:.0f}"
    return f"{value:.2f}" if name == "ttft_s" else f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def _rate(rate: Data) -> str:
    between = "" if rate["low"] is None else f" ({100 * rate['low']:.0f} to {100 * rate['high']:.0f} %, Wilson, 95 %)"
    return f"{rate['name']} wins {rate['wins']} of {rate['of']} decided votes{between}, {rate['ties']} ties"
