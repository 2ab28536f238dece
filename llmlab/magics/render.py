"""An answer as a page shows it: Markdown, text, code, JSON or sandboxed HTML. What a model wrote is data, never markup.

This file must not know any engine or notebook.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING

from llmlab.language import tr

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

Bundle = dict[str, str]

_FENCE = re.compile(r"^```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_PROSE = (
    "white-space:pre-wrap;font-family:inherit;font-size:inherit;line-height:inherit;background:none;padding:0;margin:0"
)
_MONO = "white-space:pre-wrap;background:rgba(128,128,128,.1);padding:.5em .7em;margin:.2em 0"
_FOOTER = "opacity:.65;font-size:85%;margin-top:.35em"
# No script runs and nothing is fetched: the page may only style itself and show pictures it carries along.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def live(text: str) -> Bundle:
    """The text so far, while it streams."""
    return {"text/plain": text, "text/html": _pre(text, _PROSE)}


def answer(text: str, footer: str, form: str = "md") -> Bundle:
    """The whole answer with its footer; `form` is one of grammar.FORMATS."""
    note = ""
    if form == "md":
        body = markdown(text)
    elif form == "json":
        body, note = _json(text)
    elif form == "code":
        body = "".join(_pre(code, _MONO) for code in code_blocks(text))
    elif form == "html":
        body = sandboxed("\n".join(code_blocks(text)))
    else:
        body = _pre(text, _PROSE)
    below = "".join(f"<div style='{_FOOTER}'>{escape(line)}</div>" for line in (note, footer) if line)
    plain = {"text/plain": "\n\n".join(part for part in (text, note, footer) if part)}
    return plain if form == "raw" else {**plain, "text/html": f"<div>{body}</div>{below}"}


def markdown(text: str) -> str:
    """Markdown to HTML; tags in the text show as text, pictures as links."""
    return _parser().render(text)


def code_blocks(text: str) -> list[str]:
    """The fenced blocks of an answer; all of it when there are none.

    >>> code_blocks("Here:\\n```python\\nx = 1\\n```\\nDone.")
    ['x = 1']
    """
    return [match[2].rstrip("\n") for match in _FENCE.finditer(text)] or [text]


def sandboxed(page: str) -> str:
    """A frame that shows HTML of a model: no scripts, no forms, no network, no access to the notebook."""
    source = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">{page}'
    style = "width:100%;height:320px;border:1px solid rgba(128,128,128,.35);background:#fff"
    return f'<iframe sandbox="" srcdoc="{escape(source)}" style="{style}"></iframe>'


def _json(text: str) -> tuple[str, str]:
    source = code_blocks(text)[0]
    try:
        return _pre(json.dumps(json.loads(source), indent=2, ensure_ascii=False), _MONO), ""
    except ValueError as error:
        return _pre(text, _MONO), tr(
            "This is not valid JSON: {error}. `--schema VAR` makes the engine write JSON.", error=error
        )


def _pre(text: str, style: str) -> str:
    return f"<pre style='{style}'>{escape(text)}</pre>"


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # "commonmark" would let tags through: html is off. A picture would call home: its rule is off, the link stays.
    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
