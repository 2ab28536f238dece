"""How a manifest and a divergence look: as text, and as a page that follows JupyterLab's theme without a script.

Values of engines and words of models are data: they are escaped. This file must not measure anything.
"""

from __future__ import annotations

from html import escape
from math import exp
from typing import TYPE_CHECKING

from llmlab.cards import Card

if TYPE_CHECKING:
    from llmlab.parity.case import Side
    from llmlab.parity.divergence import Divergence
    from llmlab.parity.manifest import Manifest, Row

# verdict -> mark, class: what a colour says, a sign and a word say too
_MARKS = {
    "equal": ("●", "good"), "within bound": ("●", "good"), "differs": ("✕", "bad"), "beyond bound": ("✕", "bad"),
    "noted": ("○", "quiet"), "not comparable": ("○", "quiet"),
    "excluded": ("○", "quiet"), "confirmed": ("◆", "bad"), "possible": ("◇", "quiet"),
}  # fmt: skip
# JupyterLab styles every table in an output (right-aligned, striped); the repeated class outweighs its rules.
_T = ".llmlab-parity.llmlab-parity.llmlab-parity"
_CSS = f"""<style>
.llmlab-parity{{--ink:#1b2027;--ink2:#4d5663;--line:#d5d9e0;--warn:#b3380b;--hit:#0b6b63;--sub:#f5f6f8;
 color:var(--ink);font:13px/1.45 var(--jp-ui-font-family,sans-serif);font-variant-numeric:tabular-nums;max-width:980px}}
body[data-jp-theme-light="false"] .llmlab-parity{{--ink:#eef1f5;--ink2:#bac2cd;--line:#3d434c;--warn:#ff9466;
 --hit:#53d3c3;--sub:#22252a}}
{_T} h3{{font-size:15px;font-weight:600;margin:0 0 2px;color:var(--ink)}}
{_T} table{{border-collapse:collapse;width:100%;margin:8px 0 0;border:0;font-size:13px;table-layout:auto}}
{_T} tr{{background:none}}
{_T} th,{_T} td{{border:0;border-bottom:1px solid var(--line);padding:4px 14px 4px 0;text-align:left;
 vertical-align:baseline;font-weight:400;max-width:none;overflow-wrap:anywhere;white-space:normal;color:var(--ink)}}
{_T} th{{color:var(--ink2);font-weight:600}}
{_T} tr.llmlab-section td{{color:var(--ink2);font-weight:600;font-size:11.5px;padding-top:12px}}
{_T} td.llmlab-name,{_T} td.llmlab-verdict{{white-space:nowrap}}
{_T} .llmlab-note,{_T} .llmlab-quiet{{color:var(--ink2)}}
{_T} .llmlab-good{{color:var(--hit)}}
{_T} .llmlab-bad{{color:var(--warn)}}
{_T} code{{font-family:var(--jp-code-font-family,monospace);background:var(--sub);padding:0 3px;color:var(--ink);
 white-space:pre-wrap}}
{_T} .llmlab-bar{{display:inline-block;height:9px;background:var(--ink2);margin-right:6px}}
</style>"""
_BAR_PX = 90  # of a probability of 1


def framed(body: str) -> str:
    """A piece of page with its look."""
    return f'<div class="llmlab-parity">{_CSS}{body}</div>'


def manifest_text(manifest: Manifest) -> str:
    rows = tuple((_MARKS[r.verdict][0], r.section, r.name, r.a, r.b, _said(r)) for r in manifest.rows)
    title = f"{manifest.a} and {manifest.b}. {manifest.verdict}"
    parts = [repr(Card(title, ("", "", "", manifest.a, manifest.b, ""), rows))]
    if manifest.divergence is not None:
        parts.append(divergence_text(manifest.divergence))
    return "\n\n".join(parts)


def divergence_text(divergence: Divergence) -> str:
    a, b = divergence.a, divergence.b
    tops = tuple(
        (x[2] if x else None, x and f"{exp(x[1]):.3f}", y[2] if y else None, y and f"{exp(y[1]):.3f}")
        for x, y in _side_by_side(a, b)
    )
    shown = tuple((repr(one), p, repr(other), q) for one, p, other, q in tops)
    causes = tuple((_MARKS[c.verdict][0], c.name, c.verdict, c.finding) for c in divergence.causes)
    before = f"After {_ending(divergence.text_before)!r}:"
    return "\n".join(
        [
            repr(Card(divergence.sentence, (a.name, "p", b.name, "p"), shown, ())),
            before,
            repr(Card("Causes, tested in this order", (), causes, max_width=160)),
        ]
    )


def manifest_html(manifest: Manifest) -> str:
    mark, kind = ("●", "good") if manifest.ok else ("✕", "bad")
    head = (
        f"<h3>{escape(manifest.a)} and {escape(manifest.b)}</h3>"
        f'<div><span class="llmlab-{kind}">{mark}</span> {escape(manifest.verdict)}</div>'
    )
    columns = "".join(f"<th>{escape(name)}</th>" for name in ("", "", manifest.a, manifest.b, ""))
    body, section = "", ""
    for r in manifest.rows:
        if r.section != section:
            section = r.section
            body += f'<tr class="llmlab-section"><td></td><td colspan="4">{escape(section.capitalize())}</td></tr>'
        body += _row_html(r)
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    below = f'<div style="margin-top:18px">{divergence_html(manifest.divergence)}</div>' if manifest.divergence else ""
    return framed(head + table + below)


def divergence_html(divergence: Divergence) -> str:
    a, b = divergence.a, divergence.b
    cause = divergence.cause
    why = f"Cause, tested: <b>{escape(cause.name)}</b>." if cause else "No tested cause explains it."
    head = (
        f"<h3>The answers part at token {divergence.index}</h3>"
        f"<div>After <code>{escape(_ending(divergence.text_before))}</code>, {escape(a.name)} says "
        f"<code>{escape(a.text)}</code> and {escape(b.name)} says <code>{escape(b.text)}</code>. {why}</div>"
    )
    columns = f"<th></th><th>{escape(a.name)}</th><th>{escape(b.name)}</th>"
    rows = "".join(
        f'<tr><td class="llmlab-quiet">{rank}</td>{_top_html(x, a)}{_top_html(y, b)}</tr>'
        for rank, (x, y) in enumerate(_side_by_side(a, b), 1)
    )
    causes = "".join(
        f'<tr><td class="llmlab-{_MARKS[c.verdict][1]}">{_MARKS[c.verdict][0]}</td>'
        f'<td class="llmlab-name">{escape(c.name)}</td><td class="llmlab-verdict">{c.verdict}</td>'
        f'<td class="llmlab-note">{escape(c.finding)}</td></tr>'
        for c in divergence.causes
    )
    return (
        f"{head}<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>"
        '<table><thead><tr><th></th><th colspan="3">Causes, tested in this order</th></tr></thead>'
        f"<tbody>{causes}</tbody></table>"
    )


def _row_html(r: Row) -> str:
    mark, kind = _MARKS[r.verdict]
    values = (
        f'<td colspan="2">{escape(r.note)}</td>'
        if r.a is None and r.b is None
        else f"<td>{escape(r.a or '–')}</td><td>{escape(r.b or '–')}</td>"
    )
    note = f'<span class="llmlab-note">: {escape(r.note)}</span>' if r.note and (r.a or r.b) else ""
    return (
        f'<tr><td class="llmlab-{kind}">{mark}</td><td class="llmlab-name">{escape(r.name)}</td>{values}'
        f'<td><span class="llmlab-{kind}">{r.verdict}</span>{note}</td></tr>'
    )


def _top_html(top: tuple[int, float, str] | None, side: Side) -> str:
    if top is None:
        return "<td></td>"
    token_id, logprob, text = top
    bar = f'<span class="llmlab-bar" style="width:{max(1, round(_BAR_PX * exp(logprob)))}px"></span>'
    own = " ◆" if token_id == side.token_id else ""
    return f'<td class="llmlab-name">{bar}{exp(logprob):.3f} <code>{escape(text)}</code>{own}</td>'


def _said(r: Row) -> str:
    return f"{r.verdict}: {r.note}" if r.note else r.verdict


def _side_by_side(a: Side, b: Side) -> list[tuple[tuple[int, float, str] | None, tuple[int, float, str] | None]]:
    length = max(len(a.top), len(b.top))
    padded = [(*side.top, *([None] * (length - len(side.top)))) for side in (a, b)]
    return list(zip(*padded, strict=True))


def _ending(text: str, num_characters: int = 60) -> str:
    """The end of a text: what stands before the token in question."""
    return text if len(text) <= num_characters else f"…{text[-num_characters:]}"
