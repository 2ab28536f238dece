"""The JavaScript and the style of the views as one text: widgets and saved pages take no second file.

Modules in static/ import each other by name, so that node can test them one by one; here they are put one after the
other and the import lines are left out. This file must not know what the modules do.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async |)(function|class|const|let) )", re.MULTILINE)


@cache
def script(name: str) -> str:
    """static/NAME.js and all it imports, each once and before what needs it. Only `export default` is left."""
    parts: dict[str, str] = {}
    _collect(name, parts)
    return "\n".join(parts.values())


@cache
def style() -> str:
    return (STATIC / "llmlab.css").read_text()


def _collect(name: str, parts: dict[str, str]) -> None:
    source = (STATIC / f"{name}.js").read_text()
    for needed in _IMPORT.findall(source):
        if needed not in parts:
            _collect(needed, parts)
    parts[name] = _EXPORT.sub("", _IMPORT.sub("", source))
