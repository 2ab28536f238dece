"""Twin: what stays of a view when nothing runs any more, as a picture, as HTML and as text.

This file must not know runs or notebooks.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from llmlab.views.kv_now import BlocksNow, CellsNow, Memory, kv_after
from llmlab.views.story import Story
from llmlab.views.twin_words import Section, begin_s, panel, step_noun, subtitle, text_twin

if TYPE_CHECKING:
    from llmlab.views.twin_paper import Paper

WIDTH, MARGIN = 1000, 14
PANEL, GAP = 264, 22


class Twin:
    """A story at step `index` of it (None: the last); `parts`: which pictures, "kv" and "timeline"."""

    def __init__(self, story: Story | None, parts: Sequence[str], title: str, index: int | None = None) -> None:
        self._is_unseen = story is not None and "unseen" in story.head
        # of an engine that is seen from outside there is one picture
        self._story, self._parts, self._title = story, ["timeline"] if self._is_unseen else parts, title
        last = len(story.steps) - 1 if story is not None else -1
        self.index = last if index is None else max(0, min(last, index))

    def bundle(self) -> dict[str, str]:
        """For a notebook: every program that reads it finds a form that it can show."""
        if self._state is None:
            return {"text/plain": self.text()}
        return {"image/png": self._png64, "text/html": self.html(), "text/plain": self.text()}

    def text(self) -> str:
        return text_twin(self._story, self.index, self._parts, self._title, self._state)

    def html(self) -> str:
        """The picture, its first two lines as its description, and the panel as a table. No script."""
        assert self._story is not None and self._state is not None
        described = "\n".join(self.text().splitlines()[:2])
        image = image_html(self._png64, described)
        rows = [(heading, *row) for heading, rows in self._panel() for row in rows]
        cells = ["".join(f"<td>{escape(value)}</td>" for value in row) for row in rows]
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        head = "<tr><th></th><th></th><th>figure</th><th>source</th></tr>"
        return image + (f"<details><summary>Figures</summary><table>{head}{table}</table></details>" if rows else "")

    def png(self) -> bytes:
        """1000 px wide at twice the resolution, light."""
        return self._png

    @cached_property
    def _state(self) -> Memory | None:
        return kv_after(self._story, self.index) if self._story is not None and self._story.steps else None

    @cached_property
    def _png64(self) -> str:
        return b64encode(self._png).decode()

    @cached_property
    def _png(self) -> bytes:
        from llmlab.views.twin_paper import Paper
        from llmlab.views.twin_timeline import draw_timeline

        story, state = self._story, self._state
        if story is None or state is None:
            raise LookupError("Nothing has run yet, so there is nothing to draw.")
        paper, x, width = Paper(WIDTH), MARGIN, WIDTH - 2 * MARGIN
        paper.title(self._title, subtitle(story.head), x)
        y: float = 38
        if "kv" in self._parts:
            bottom = _draw_kv(paper, story, state, x, y, width - PANEL - GAP)
            y = max(bottom, _draw_panel(paper, self._panel(), x + width - PANEL, y)) + 16
        if self._is_unseen:
            y = _draw_arrivals(paper, story, self.index, x, y, width) + 8
        elif "timeline" in self._parts:
            y = draw_timeline(paper, story, self.index, x, y, width) + 8
        _draw_narration(paper, story, self.index, x, y, width)
        return paper.png()

    def _panel(self) -> list[Section]:
        assert self._story is not None and self._state is not None
        return panel(self._story, self.index, self._state) if "kv" in self._parts else []


def image_html(png64: str, described: str) -> str:
    """`png64`: a picture of twin_paper in base64; `described`: what it shows, for who does not see it."""
    style = "width:100%;max-width:1000px;height:auto;background:#fff"
    return f'<img src="data:image/png;base64,{png64}" alt="{escape(described)}" style="{style}">'


def _draw_kv(paper: Paper, story: Story, state: Memory, x: float, y: float, width: float) -> float:
    """The picture of the KV cache with its legend; where it ends."""
    from llmlab.views.twin_blocks import BlocksPicture
    from llmlab.views.twin_cells import CellsPicture

    if isinstance(state, BlocksNow):
        return BlocksPicture(paper, story, state, x, y, width).draw()
    if isinstance(state, CellsNow):
        return CellsPicture(paper, story, state, x, y, width).draw()
    paper.text("This engine shows no KV cache", x, y + 18, size=15, bold=True)
    return y + 30


def _draw_arrivals(paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> float:
    from llmlab.views.twin_arrivals import draw_arrivals
    from llmlab.views.twin_paper import INK2

    line = paper.words([(story.head["unseen"], False)], x, y + 6, width, size=13, colour=INK2)
    return draw_arrivals(paper, story, index, x, line + 12, width)


def _draw_panel(paper: Paper, sections: Sequence[Section], x: float, y: float) -> float:
    from llmlab.views.twin_paper import INK2, INK3, LINE

    for heading, rows in sections:
        y += 14
        paper.text(heading, x, y, size=11.5, bold=True, colour=INK2)
        for name, figure, source in rows:
            y += 23
            paper.text(name, x, y, size=13)
            paper.text(source, x + PANEL, y, size=11, align="right", colour=INK3)
            paper.text(figure, x + PANEL - 68 * bool(source), y, size=13, bold=True, align="right")
            paper.box(x, y + 6, PANEL, 1, LINE)
        y += 14
    return y


def _draw_narration(paper: Paper, story: Story, index: int, x: float, y: float, width: float) -> None:
    """What happened in the step, and which step it is. Ends the picture."""
    from llmlab.views.twin_paper import INK, INK2, SUB

    record = story.steps[index]
    parts = [(words, bool(is_bold)) for words, is_bold in record["say"]]
    bottom = paper.words(parts, x + 13, y + 20, width - 26) + 12
    paper.box(x, y, width, bottom - y, SUB)
    paper.box(x, y, 3, bottom - y, INK)
    paper.words(parts, x + 13, y + 20, width - 26)
    step = f"{step_noun(story.head)} {record['n']}"
    paper.text(step, x, bottom + 20, size=13, bold=True)
    rest = f"of {story.steps[-1]['n']} · {record['t'] - begin_s(story):.2f} s"
    paper.text(rest, x + paper.text_width(f"{step} ", size=13, bold=True), bottom + 20, colour=INK2)
    paper.height = bottom + 32
