"""Small tables for people: the same content as text and as HTML. Values are escaped; None shows as –.

This file must not know what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

# "12", "3.5", "41 ms", "98.4 MB", "7 %", "–": what stands in columns of figures
_FIGURE = re.compile(r"[\d.,]+( ?[\w%]{1,4})?|–")


@dataclass(frozen=True)
class Card:
    """A title, a table, and lines of text below it.

    >>> Card("Engines", ("name", "tok/s"), (("smol", 71.5), ("big", None)), ("Type %llm use NAME.",))
    Engines
    name  tok/s
    smol   71.5
    big       –
    Type %llm use NAME.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    notes: tuple[str, ...] = ()
    # How wide a text column may get in the text form; longer values are cut with an ellipsis.
    max_width: int = 100
    # This column keeps its width on a page, so that a table that grows does not jump.
    steady: str = ""

    def __repr__(self) -> str:
        lines = [self.title] if self.title else []
        table = [list(self.columns)] if any(self.columns) else []
        table += [[short_text(_shown(value), self.max_width) for value in row] for row in self.rows]
        return "\n".join([*lines, *_aligned(table, self._is_figures), *self.notes])

    def _repr_html_(self) -> str:
        # The page brings its own look of tables, as for DataFrames: only what carries meaning is set here.
        title = f"<div><b>{escape(self.title)}</b></div>" if self.title else ""
        notes = "".join(f"<div style='opacity:.75'>{with_code(note)}</div>" for note in self.notes)
        return f"<div>{title}{self._table_html() if self.rows else ''}{notes}</div>"

    @property
    def _is_figures(self) -> list[bool]:
        """Of each column, whether all its values are figures."""
        return [all(_FIGURE.fullmatch(_shown(value)) for value in column) for column in zip(*self.rows, strict=True)]

    def _table_html(self) -> str:
        styles = [f"text-align:{'right' if is_figures else 'left'}" for is_figures in self._is_figures]
        if self.steady:
            styles[self.columns.index(self.steady)] += ";min-width:36em"
        head = f"<thead>{_row_html('th', self.columns, styles)}</thead>" if any(self.columns) else ""
        body = "".join(_row_html("td", row, styles) for row in self.rows)
        return f"<table>{head}<tbody>{body}</tbody></table>"


def with_code(text: str) -> str:
    """Escaped text in which `this` is set as code.

    >>> with_code("Type `%llm ps` & go")
    'Type <code>%llm ps</code> &amp; go'
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts))


def bytes_text(num_bytes: int | float | None) -> str:
    """Decimal units, three digits; – when it was not measured.

    >>> bytes_text(98_400_000), bytes_text(1_230_000_000), bytes_text(None)
    ('98.4 MB', '1.23 GB', '–')
    """
    if num_bytes is None:
        return "–"
    value, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" else max(0, 3 - len(f"{abs(value):.0f}"))
    return f"{value:.{digits}f} {units[0]}"


def seconds_text(seconds: float | None) -> str:
    """Milliseconds below one second; – when it was not measured.

    >>> seconds_text(0.0421), seconds_text(0.0012), seconds_text(2.345), seconds_text(None)
    ('42 ms', '1.2 ms', '2.35 s', '–')
    """
    if seconds is None:
        return "–"
    if seconds >= 0.9995:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1000:.1f} ms"


def short_text(text: str, width: int) -> str:
    r"""On one line, cut to `width` characters.

    >>> short_text("a  long\nanswer", 8)
    'a long …'
    """
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _row_html(tag: str, values: Iterable[object], styles: Sequence[str]) -> str:
    cells = (
        f"<{tag} style='{style}'>{with_code(_shown(value))}</{tag}>"
        for value, style in zip(values, styles, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _shown(value: object) -> str:
    return "–" if value is None else str(value)


def _aligned(table: Sequence[Sequence[str]], is_figures: Sequence[bool]) -> list[str]:
    if not table:
        return []
    widths = [max(text_width(row[i]) for row in table) for i in range(len(table[0]))]
    columns = list(zip(is_figures or [False] * len(widths), widths, strict=True))
    return [
        "  ".join(_padded(cell, width, right) for cell, (right, width) in zip(row, columns, strict=True)).rstrip()
        for row in table
    ]


def text_width(text: str) -> int:
    """In columns of a terminal, where a Chinese character takes two.

    >>> text_width("KV cache"), text_width("KV 缓存")
    (8, 7)
    """
    return len(text) if text.isascii() else sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def _padded(cell: str, width: int, right: bool) -> str:
    room = " " * (width - text_width(cell))
    return room + cell if right else cell + room
