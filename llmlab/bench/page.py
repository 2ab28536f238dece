"""How a measurement looks: as text, in a notebook, and as a page of its own. Nothing is measured or judged here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llmlab.bench.curve import curves, svg
from llmlab.bench.result import Bench, EngineFacts, Point
from llmlab.bench.table import notes_of
from llmlab.cards import Card, bytes_text, seconds_text, with_code

# JupyterLab styles every table in an output (right-aligned, striped); the repeated class outweighs its rules.
_T = ".llmlab-bench.llmlab-bench.llmlab-bench"
CSS = f"""<style>
.llmlab-bench{{--ink:#1b2027;--ink2:#4d5663;--line:#d5d9e0;--warn:#b3380b;--hit:#0b6b63;--paper:#fff;
 --own0:#405aba;--own1:#b96f06;--own2:#9a377e;--own3:#4b854b;
 color:var(--ink);font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);font-variant-numeric:tabular-nums;
 max-width:980px}}
body[data-jp-theme-light="false"] .llmlab-bench{{--ink:#eef1f5;--ink2:#bac2cd;--line:#3d434c;--warn:#ff9466;
 --hit:#53d3c3;--paper:#17191c;--own0:#8fa4ff;--own1:#ee9e30;--own2:#e08cc8;--own3:#94c294}}
{_T} h2{{font-size:17px;font-weight:600;margin:26px 0 4px;color:var(--ink)}}
{_T} h3{{font-size:15px;font-weight:600;margin:0 0 2px;color:var(--ink)}}
{_T} p{{margin:4px 0;max-width:76ch}}
{_T} ul{{margin:4px 0;padding-left:20px;max-width:76ch}}
{_T} .llmlab-quiet{{color:var(--ink2)}}
{_T} .llmlab-good{{color:var(--hit)}}
{_T} .llmlab-bad{{color:var(--warn)}}
{_T} .llmlab-scroll{{overflow-x:auto}}
{_T} table{{border-collapse:collapse;margin:8px 0;border:0;font-size:13px;table-layout:auto}}
{_T} tr{{background:none}}
{_T} th,{_T} td{{border:0;border-bottom:1px solid var(--line);padding:4px 12px 4px 0;text-align:right;
 white-space:nowrap;vertical-align:baseline;font-weight:400;color:var(--ink);max-width:none}}
{_T} th{{color:var(--ink2);font-weight:600}}
{_T} td.llmlab-word,{_T} th.llmlab-word{{text-align:left}}
{_T} td.llmlab-prose{{white-space:normal;text-align:left}}
{_T} td.llmlab-section{{font-weight:600;padding-top:10px}}
{_T} .llmlab-curves{{display:flex;flex-wrap:wrap;gap:8px 24px;margin:10px 0}}
{_T} svg{{max-width:100%;height:auto;background:none}}
{_T} svg text{{fill:var(--ink);font-size:12px}}
{_T} svg text.llmlab-title{{font-size:13px;font-weight:600}}
{_T} svg text.llmlab-tick{{fill:var(--ink2);font-size:11px}}
{_T} svg text.llmlab-name{{font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:4px}}
{_T} svg .llmlab-grid{{stroke:var(--line);stroke-width:1}}
{_T} svg .llmlab-line{{fill:none;stroke-width:2}}
{_T} svg .llmlab-thin{{stroke-width:1;stroke-dasharray:3 3}}
{_T} svg .llmlab-mark{{stroke:var(--paper);stroke-width:1}}
{_T} svg .llmlab-ring{{fill:none;stroke:var(--ink);stroke-width:1.5}}
"""  + "".join(
    f"{_T} .llmlab-line.llmlab-own{i}{{stroke:var(--own{i})}} {_T} .llmlab-mark.llmlab-own{i}{{fill:var(--own{i})}}\n"
    for i in range(4)
) + "</style>"  # fmt: skip


def text(result: Bench) -> str:
    """Title, table, sentences."""
    return repr(Card(title(result), _columns(result), tuple(_cells(result)), notes_of(result), max_width=160))


def html(result: Bench) -> str:
    """The same with curves, for the output of a cell."""
    return framed(f"<h3>{escape(title(result))}</h3>{engines_line(result)}{body(result)}{bullets(notes_of(result))}")


def body(result: Bench) -> str:
    """A table with a section for each engine, and curves."""
    columns, rows = _columns(result)[1:], _cells(result)
    sections = [(facts.name, [row[1:] for row in rows if row[0] == facts.name]) for facts in result.engines]
    pictures = "".join(svg(panel) for panel in curves(result))
    curve = f'<div class="llmlab-curves">{pictures}</div>' if pictures else ""
    return html_table(columns, sections) + curve


def load_table(result: Bench) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Columns and rows of the table, for whoever writes it in another form."""
    return _columns(result), _cells(result)


def page(result: Bench) -> str:
    """A file of its own."""
    machine = "".join(f"<li>{escape(key)}: {escape(value)}</li>" for key, value in result.machine.items())
    return whole_page(title(result), framed(
        f"<h3>{escape(title(result))}</h3>{engines_line(result)}<p>{escape(result.workload.about)}</p>{body(result)}"
        f"{bullets(notes_of(result))}<h2>Machine</h2><ul>{machine}</ul>"
    ))  # fmt: skip


def whole_page(name: str, content: str) -> str:
    """Content as a whole HTML file."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>'
        '<meta name="viewport" content="width=device-width"><style>body{margin:24px;background:#fff}</style></head>'
        f'<body data-jp-theme-light="true">\n{content}\n</body></html>\n'
    )


def framed(content: str) -> str:
    """A piece of page with its look."""
    return f'<div class="llmlab-bench">{CSS}{content}</div>'


def title(result: Bench) -> str:
    return f"{result.workload.title}: {', '.join(facts.name for facts in result.engines)}"


def engines_line(result: Bench) -> str:
    lines = "".join(f"<div>{escape(facts.name)}: {escape(described(facts))}</div>" for facts in result.engines)
    alone = "<div>The engines took turns: each was alone on the machine, so speeds compare.</div>"
    return f'<div class="llmlab-quiet">{lines}{alone if len(result.engines) > 1 else ""}</div>'


def described(facts: EngineFacts) -> str:
    """Engine, version, model, format, device."""
    threads = f"{facts.num_threads} threads" if facts.num_threads else None
    parts = (f"{facts.engine} {facts.version}".strip(), facts.model, facts.quant or facts.dtype, facts.device, threads)
    return " · ".join(part for part in parts if part)


def html_table(columns: Sequence[str], sections: Sequence[tuple[str, Sequence[Sequence[object]]]]) -> str:
    """Sections of rows, each under its name ("": none). The first column is text, the others figures."""
    lines = _row_html("th", columns)
    for name, rows in sections:
        if name:
            lines += f'<tr><td class="llmlab-word llmlab-section" colspan="{len(columns)}">{escape(name)}</td></tr>'
        lines += "".join(_row_html("td", values) for values in rows)
    return scrolled(lines)


def scrolled(rows: str) -> str:
    """Rows as a table that scrolls by itself where the page is narrow."""
    return f'<div class="llmlab-scroll"><table>{rows}</table></div>'


def _row_html(tag: str, values: Sequence[object]) -> str:
    kinds = ("" if i else " class=llmlab-word" for i in range(len(values)))
    cells = (
        f"<{tag}{kind}>{with_code('–' if v is None else str(v))}</{tag}>" for kind, v in zip(kinds, values, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def bullets(lines: Sequence[str]) -> str:
    """Lines as a list; "" without any."""
    return f"<ul>{''.join(f'<li>{with_code(line)}</li>' for line in lines)}</ul>" if lines else ""


def _columns(result: Bench) -> tuple[str, ...]:
    good = ("goodput/s",) if result.slo else ()
    return (
        "engine", result.workload.load_unit, "tok/s", *good, "TTFT p50", "p99", "TPOT p50", "p99", "E2E p50", "p99",
        "KV", "preempted", "hits", "memory", "CPU ms/tok", *_energy_column(result),
    )  # fmt: skip


def _energy_column(result: Bench) -> tuple[str, ...]:
    """Where the machine tells it."""
    return ("J/token",) if any(m.energy_j is not None for m in result.measurements) else ()


def _cells(result: Bench) -> list[tuple[object, ...]]:
    """Of all points; the first value of each is its engine."""
    return [_row(result, point) for point in result.points]


def _row(result: Bench, point: Point) -> tuple[object, ...]:
    cpu_s, joules = point.median(lambda m: m.cpu_s_per_token), point.median(lambda m: m.energy_j_per_token)
    return (
        point.engine,
        f"{point.load:g}" + ("" if point.is_complete else " (incomplete)"),
        _tokens(point),
        *((_figure(point.goodput_rps),) if result.slo else ()),
        *(seconds_text(point.latency_s(name, q)) for name, q in _LATENCIES),
        _percent(point.median(lambda m: m.kv_peak)),
        _figure(point.median(lambda m: m.num_preemptions)),
        _percent(point.median(lambda m: m.prefix_hit_rate)),
        bytes_text(point.median(lambda m: m.rss_peak_bytes)),
        _figure(None if cpu_s is None else cpu_s * 1000),
        *((_figure(joules),) if _energy_column(result) else ()),
    )


_LATENCIES = (("ttft", 50), ("ttft", 99), ("tpot", 50), ("tpot", 99), ("e2e", 50), ("e2e", 99))


def _tokens(point: Point) -> str:
    """The median, and how far the repeats are from it."""
    middle, spread = point.throughput_tps, point.spread(lambda m: m.throughput_tps)
    if middle is None or spread is None:
        return _figure(middle)
    return f"{_figure(middle)} ± {_figure((spread[1] - spread[0]) / 2)}"


def _figure(value: float | None) -> str:
    """
    >>> _figure(123.4), _figure(4.56), _figure(0), _figure(None)
    ('123', '4.6', '0', '–')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 20 or value == int(value) else f"{value:.2g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
