"""TokensView: what llmlab.tokens() returns, an answer token by token. Its twin is the text, each token with its
probability as a tooltip.

This file must not know how tokens are drawn on a page with scripts: that is static/tokens.js.
"""

from __future__ import annotations

import math
import uuid
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.engines.result import Result
from llmlab.views.tokens import tokens_data, tokens_page

if TYPE_CHECKING:
    from llmlab.views.widget import TokensWidget

# Probability from this on -> colour of the underline, as in static/tokens.js (light)
_CLASSES = ((0.9, ""), (0.5, "#fdf3d0"), (0.2, "#fbe0a0"), (0.05, "#f7bf62"), (0.0, "#ee9440"))


class TokensView:
    """The last line of a cell, or display() of it, shows the answer."""

    def __init__(self, result: Result) -> None:
        self.data: dict[str, Any] = tokens_data(result)
        self._text = repr(result)
        self._display_id = uuid.uuid4().hex
        self._widget: TokensWidget | None = None

    @property
    def widget(self) -> TokensWidget:
        """The AnyWidget, for front ends and layouts of your own."""
        from llmlab.views.widget import TokensWidget

        if self._widget is None or self._widget.comm is None:
            self._widget = TokensWidget(self.data)
        return self._widget

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """Write it into one file that needs no kernel and no network."""
        path = Path(path)
        path.write_text(tokens_page(self.data, title=self.data["title"], theme=theme), encoding="utf-8")
        return path

    def freeze(self) -> None:
        """Put the twin where it is shown; a notebook that is saved then needs no kernel to show it."""
        from llmlab.views.display import publish

        publish(self._bundle(), self._display_id, update=True)
        self.left()

    def left(self) -> None:
        """No cell shows it any more."""
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.close()

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self._bundle()

    def _ipython_display_(self) -> None:
        from llmlab.views.display import CELLS, place, publish, view_of

        where = place()
        if where in ("terminal", "none"):
            print(self)
            return
        CELLS.add(self)
        publish(self._bundle() | (view_of(self.widget) if where == "page" else {}), self._display_id)

    def _bundle(self) -> dict[str, Any]:
        words = "".join(_token_html(token) for token in self.data["tokens"])
        head = f"<div><b>{escape(self.data['title'])}</b> {escape(self.data['subtitle'])}</div>"
        return {"text/plain": self._text, "text/html": f"{head}<div style='white-space:pre-wrap'>{words}</div>"}


def _token_html(token: dict[str, Any]) -> str:
    """A token as text, underlined by how likely it was."""
    probability = None if token["logprob"] is None else math.exp(token["logprob"])
    told = "" if probability is None else f", {100 * probability:.1f} %"
    colour = "" if probability is None else next(colour for least, colour in _CLASSES if probability >= least)
    style = f" style='border-bottom:2px solid {colour}'" if colour else ""
    return f"<span title='token {token['id']}{told}'{style}>{escape(token['text'] or token['mark'])}</span>"
