"""TokensView, one answer token by token, and SamplerView, one distribution to sample from: what llmlab.tokens() and
llmlab.sampler() return.

This file must not know how tokens are drawn: on a page that is static/tokens.js, in a twin twin_tokens.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.engines.result import Result
from llmlab.views.placed import Placed
from llmlab.views.tokens import tokens_data, tokens_page

if TYPE_CHECKING:
    from llmlab.views.widget import TokensWidget


class _DataView(Placed["TokensWidget"]):
    """Draws `data`, which comes all at once."""

    def __init__(self, data: dict[str, Any], *, presentation: bool = False) -> None:
        super().__init__()
        self.data = {**data, "presentation": presentation}

    def _make_widget(self) -> TokensWidget:
        from llmlab.views.widget import TokensWidget

        return TokensWidget(self.data)

    def to_html(self, path: str | Path, *, theme: str = "light") -> Path:
        """Write it into one file that needs no kernel and no network."""
        path = Path(path)
        path.write_text(tokens_page(self.data, title=self.data["title"], theme=theme), encoding="utf-8")
        return path


class TokensView(_DataView):
    """The last line of a cell, or display() of it, shows the answer."""

    def __init__(self, result: Result, *, presentation: bool = False) -> None:
        super().__init__(tokens_data(result), presentation=presentation)
        self._text = repr(result)

    def __repr__(self) -> str:
        return self._text

    def bundle(self) -> dict[str, Any]:
        from llmlab.views.twin_tokens import tokens_bundle

        return tokens_bundle(self.data, self._text)


class SamplerView(_DataView):
    """Sliders over a next-token distribution, as sampler_data() tells it."""

    def __repr__(self) -> str:
        from llmlab.views.twin_sampler import sampler_text

        return sampler_text(self.data)

    def bundle(self) -> dict[str, Any]:
        from llmlab.views.twin_sampler import sampler_bundle

        return sampler_bundle(self.data)
