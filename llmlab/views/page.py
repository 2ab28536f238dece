"""A story as one self-contained HTML file that scrubs: no kernel, no network.

This file must not know engines or widgets.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from llmlab.views.assets import script, style
from llmlab.views.story import Story

# A page may be opened from a disk by anybody: names and texts of a trace must not become markup.
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def page(story: Story, *, parts: list[str], title: str, theme: str = "light", **options: Any) -> str:
    """`parts`: which pictures, in order: "kv", "timeline". `options` go to show() of static/view.js."""
    data = {
        "head": story.head,
        "requests": story.requests,
        "steps": story.steps,
        "options": {"parts": parts, "title": title, **options},
    }
    return frame(data, module="saved_page", title=title, theme=theme)


def frame(data: dict[str, Any], *, module: str, title: str, theme: str = "light") -> str:
    """The HTML file in which static/MODULE.js finds `data` and the element to draw in."""
    is_light = json.dumps(theme != "dark")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{style()}\nbody {{ margin: 14px; }}</style></head>\n"
        f'<body data-jp-theme-light="{is_light}"><div id="llmlab-root"></div>\n'
        f'<script type="application/json" id="llmlab-data">{json.dumps(data).translate(_UNSAFE)}</script>\n'
        f'<script type="module">\n{script(module)}\n</script></body></html>\n'
    )


def write_page(path: str | Path, story: Story, **arguments: Any) -> Path:
    path = Path(path)
    path.write_text(page(story, **arguments), encoding="utf-8")
    return path
