"""The widget of a comparison. To the page: `opening`, all of it as JSON, when it is made; then what is new.

{"t": "k", head, cells}: all of it; {"t": "s", head or null, cells: [{i, j, from, tokens, ...}]}: what changed. From the
page: {"t": "here" | "need" | "stop" | "vote" | "reveal" | "why", ...}. This file must not know comparisons.
"""

from __future__ import annotations

from collections.abc import Callable

import traitlets

from llmlab.views.assets import script, style
from llmlab.views.widget import Message, TalkingWidget


class CompareWidget(TalkingWidget):
    """Draws a comparison."""

    _esm = script("compare_widget")
    _css = style()

    opening = traitlets.Bytes().tag(sync=True)
    # News still come.
    is_live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, opening: bytes, answer: Callable[[Message], None]) -> None:
        super().__init__(answer, opening=opening)
