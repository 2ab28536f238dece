"""The widget of the panel: `state` to the page, {"t": "run" | "load" | "stop" | "refresh", ...} from it.

The views in its tabs are widgets of their own, named by their model. This file must not know engines.
"""

from __future__ import annotations

from collections.abc import Callable

import traitlets

from llmlab.views.assets import script, style
from llmlab.views.widget import Message, TalkingWidget


class PanelWidget(TalkingWidget):
    """Draws the form and its tabs."""

    _esm = script("panel_widget")
    _css = style()

    state = traitlets.Dict().tag(sync=True)

    def __init__(self, state: Message, answer: Callable[[Message], None]) -> None:
        super().__init__(answer, state=state)
