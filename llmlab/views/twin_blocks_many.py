"""The frozen picture of more than 4,000 blocks: an overview in pixels, and a window of it in which blocks can be told
apart. Geometry of static/kv_blocks_geometry.js.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

from collections.abc import Callable

from llmlab.views.kv_now import BlocksNow
from llmlab.views.twin_overview import Overview
from llmlab.views.twin_paper import BG, INK, INK2, INK3, LINE, Paper
from llmlab.views.twin_words import number

COLUMNS, ROWS = 40, 9
Level = Callable[[int, float, float, float], None]


def draw_many(
    paper: Paper, state: BlocksNow, first: int, count: int, owner: Callable[[int], str], level: Level,
    place: tuple[float, float, float],
) -> float:  # fmt: skip
    """`place`: (x, y, width). `level`: draws one block in a cell, (block, x, y, side). Returns where it ends."""
    x, y, width = place
    overview = Overview.fit(count, x + 1, y + 20, width - 2)
    px, each = overview.px, overview.each
    words = (
        f"one {px}×{px} px square each" if each == 1 else f"{each} a pixel (held wins over cached, cached over free)"
    )
    caption = f"All {number(count)} blocks, {words}, read left to right"
    paper.text(caption, x, y + 12, size=11.5, bold=True, colour=INK2)

    def colour(things: range, is_odd: bool) -> str:
        blocks = [first + k for k in things]
        held = next((b for b in blocks if b in state.holders), None)
        if held is not None:
            return owner(min(state.holders[held]))
        if any(b in state.cached for b in blocks):
            return INK3 if is_odd else BG
        return LINE if is_odd and things.start // each // overview.columns % 2 else BG

    overview.draw(paper, colour)
    pitch = max(17, min(20, int((width - 4) // COLUMNS)))
    columns = max(1, min(COLUMNS, int((width - 4) // pitch)))
    start = _window(state, first, count, columns)
    end = min(first + count, start + columns * ROWS)
    overview.frame(paper, start - first, end - 1 - first)
    _draw_words(paper, state, overview, first, (start, end - 1), width)
    top = overview.bottom + 52
    words = f"Window: {end - start} blocks at {pitch} px, {columns} a row"
    paper.text(words, x, top - 8, size=11.5, bold=True, colour=INK2)
    for k, block in enumerate(range(start, end)):
        level(block, x + 2 + k % columns * pitch, top + k // columns * pitch, pitch - 2)
    return top + ROWS * pitch + 4


def _window(state: BlocksNow, first: int, count: int, columns: int) -> int:
    """Its first block: what is handed out next, or was handed out last, stands in its middle row."""
    middle = state.next_out[0] if state.next_out else max(state.fresh, default=first)
    row = (middle - first) // columns - ROWS // 2
    return max(first, min(first + count - columns * ROWS, first + row * columns))


def _draw_words(
    paper: Paper, state: BlocksNow, overview: Overview, first: int, shown: tuple[int, int], width: float
) -> None:
    bottom = overview.bottom + 16
    words = f"window below: #{number(shown[0])}–#{number(shown[1])}"
    paper.text(words, overview.x - 1, bottom, bold=True)
    if not state.next_out:
        return
    at, y = overview.corner(state.next_out[0] - first)
    is_below = y + 18 < overview.bottom
    tip, foot = (y + overview.px + 1, y + overview.px + 11) if is_below else (y - 1, y - 11)
    paper.polygon([(at, tip), (at - 6, foot), (at + 6, foot)], INK)
    is_right = at > overview.x + width - 140
    words, x = f"next out #{number(state.next_out[0])}", at + (-10 if is_right else 10)
    paper.text(words, x, foot + (0 if is_below else 8), bold=True, align="right" if is_right else "left", halo=BG)
