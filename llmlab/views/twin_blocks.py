"""The frozen picture of a paged KV cache, with the geometry of static/kv_blocks_geometry.js.

This file must not know runs, files or notebooks.
"""

from __future__ import annotations

import math
from functools import partial

from llmlab.views import twin_paper as ink
from llmlab.views.kv_now import BlocksNow
from llmlab.views.story import Story
from llmlab.views.twin_blocks_many import draw_many
from llmlab.views.twin_paper import BG, GHOST, INK, INK2, INK3, Paper

ORDINALS = ("next out", "2nd", "3rd")
GRID_HEIGHT = 440


class BlocksPicture:
    """Every slot of up to 64 blocks, fill levels of up to 4,000, pixels and a window of more."""

    def __init__(self, paper: Paper, story: Story, state: BlocksNow, x: float, y: float, width: float) -> None:
        self.paper, self.story, self.state, self.x, self.y, self.width = paper, story, state, x, y, width
        self.first = story.head["first_block"]
        self.count = story.head["num_blocks"] or 0
        self.size = story.head["block_size"] or 1
        # what a request had computed before this step: slots from there on were written now
        self.before = {row[0]: row[3] for row in state.rows}

    def draw(self) -> float:
        if self.count <= 64:
            bottom = self._slots()
        elif self.count <= 4000:
            bottom = self._grid(*((40, 22) if self.count <= 600 else (18, 10)))
        else:
            place = self.x, self.y, self.width
            bottom = draw_many(self.paper, self.state, self.first, self.count, self._owner, self._level, place)
        return self.paper.legend(self._legend(), self.x, bottom + 8, self.width)

    def _owner(self, request: int) -> str:
        return ink.owner(request, len(self.story.requests), self.story.others)

    def _bands(self, block: int) -> list[str]:
        """Colours of a held block: up to 4 holders; of more the first 3, and a dark band."""
        holders = sorted(self.state.holders[block])
        return [self._owner(r) for r in (holders if len(holders) <= 4 else holders[:3])] + [INK2] * (len(holders) > 4)

    # ---- up to 64 blocks: every slot

    def _slots(self) -> float:
        gap, columns = 10, 10 if self.width >= 980 else 7 if self.width >= 560 else 5
        cell = min(104, (self.width - gap * (columns - 1) - 18) // columns)
        high = round(17 + cell / 2)
        for k in range(self.count):
            left, top = self.x + 8 + k % columns * (cell + gap), self.y + 18 + k // columns * (high + 28)
            self._slot_block(self.first + k, left, top, cell, high)
        return self.y + math.ceil(self.count / columns) * (high + 28) + 6

    def _slot_block(self, block: int, x: float, y: float, w: float, h: float) -> None:
        paper, holders = self.paper, sorted(self.state.holders.get(block, ()))
        paper.text(f"#{block}", x, y - 5, size=11, colour=INK3)
        if block in self.state.fresh:
            paper.text("new", x + 34, y - 5, size=11, bold=True)
            if block in self.state.evicted:
                paper.mark("evicted", x + 66, y - 8)
        if not holders:
            self._open_block(block, x, y, w, h)
        else:
            self._held_block(block, holders, x, y, w, h)
        if block in self.state.next_out[:3]:
            place = list(self.state.next_out).index(block)
            paper.pill(ORDINALS[place], x + w - 2, y + h - 17, filled=place == 0)

    def _open_block(self, block: int, x: float, y: float, w: float, h: float) -> None:
        paper, is_cached = self.paper, block in self.state.cached
        if is_cached:
            paper.hatch(x, y, w, h, GHOST, 6)
            paper.box(x, y, w, h, None, INK3, radius=3)
        else:
            paper.dotted_box(x, y, w, h, INK3)
        word = "cached" if is_cached else "free"
        wide = paper.text_width(word)
        paper.box(x + w / 2 - wide / 2 - 4, y + h / 2 - 9, wide + 8, 18, BG)
        paper.text(word, x + w / 2, y + h / 2 + 4, align="center", colour=INK2)

    def _held_block(self, block: int, holders: list[int], x: float, y: float, w: float, h: float) -> None:
        paper, bands, is_shared = self.paper, self._bands(block), len(holders) > 1
        band = w / len(bands)
        for i, colour in enumerate(bands):
            paper.box(x + i * band, y, band, h, ink.tint(colour))
            paper.box(x + i * band, y, band, 17, colour)
        fill, written_from = self.state.fill(block), self._written_from(block, holders)
        columns = 8 if self.size <= 64 else 16 if self.size <= 256 else 32
        rows = math.ceil(self.size / columns)
        wide, high = (w - 4) / columns, (h - 20) / rows
        for slot in range(fill):
            left, top = x + 2 + slot % columns * wide, y + 18 + slot // columns * high
            colour = bands[min(len(bands) - 1, int((left + wide / 2 - x) / band))]
            paper.box(left + 0.5, top + 0.5, wide - 1, high - 1, colour)
            if slot >= written_from:
                paper.box(left + wide / 2 - 1.5, top + high / 2 - 1.5, 3, 3, ink.text_on(colour))
        paper.box(x, y, w, h, None, INK if is_shared else ink.edge(bands[0]), radius=3)
        if is_shared:
            paper.pill(f"×{len(holders)}", x + w, y - 17)
        for i, request in enumerate(holders[: len(bands)]):
            name = self.story.name(request) if bands[i] != INK2 else f"+{len(holders) - 3}"
            if paper.text_width(name, bold=True) <= band:
                paper.text(name, x + (i + 0.5) * band, y + 13, bold=True, align="center", colour=ink.text_on(bands[i]))

    def _written_from(self, block: int, holders: list[int]) -> float:
        found = math.inf
        for request in holders:
            first = self.state.logical(request, block) * self.size
            old = max(0, min(self.size, self.before.get(request, math.inf) - first))
            if self.state.tokens.get(request, 0) - first > old:
                found = min(found, old)
        return found

    # ---- up to 4,000 blocks: fill levels

    def _grid(self, most: int, least: int) -> float:
        for cell in range(most, least - 1, -1):
            pitch = cell + (4 if most == 40 else 2 if cell >= 14 else 1)
            columns = max(1, int((self.width - 44) // pitch))
            rows = math.ceil(self.count / columns)
            if rows * pitch <= GRID_HEIGHT:
                break
        for k in range(self.count):
            x, y = self.x + 40 + k % columns * pitch, self.y + 6 + k // columns * pitch
            if k % columns == 0 and (pitch >= 14 or k // columns % 2 == 0):
                self.paper.text(
                    f"#{self.first + k}", self.x + 34, y + cell / 2 + 4, size=11, align="right", colour=INK3
                )
            self._level(self.first + k, x, y, cell)
        return self.y + rows * pitch + 10

    def _level(self, block: int, x: float, y: float, cell: float) -> None:
        paper, holders = self.paper, self.state.holders.get(block)
        if not holders:
            if block in self.state.cached:
                paper.hatch(x, y, cell, cell, GHOST, 6 if cell >= 22 else 4)
                paper.box(x, y, cell, cell, None, INK3)
            else:
                paper.dotted_box(x, y, cell, cell, INK3, 1, 2)
        else:
            bands = self._bands(block)
            level, band = round((cell - 2) * self.state.fill(block) / self.size), (cell - 2) / len(bands)
            paper.box(x, y, cell, cell, INK if len(bands) > 1 else ink.edge(bands[0]))
            for i, colour in enumerate(bands):
                paper.box(x + 1 + i * band, y + 1, band, cell - 2, ink.tint(colour))
                paper.box(x + 1 + i * band, y + cell - 1 - level, band, level, colour)
            self._level_name(holders, x, y, cell, bands, is_full=level >= cell - 2)
        if self.state.next_out and block == self.state.next_out[0]:
            paper.box(x + cell - 9, y + cell - 11, 9, 11, INK)
            paper.text("1", x + cell - 4.5, y + cell - 2, size=9.5, bold=True, align="center", colour=BG)

    def _level_name(
        self, holders: list[int], x: float, y: float, cell: float, bands: list[str], *, is_full: bool
    ) -> None:
        words, size = f"×{len(holders)}" if len(holders) > 1 else self.story.name(holders[0]), 11 if cell >= 30 else 9.5
        wide, middle = self.paper.text_width(words, size=size, bold=True), y + cell / 2
        if wide > cell - 2:
            return
        if len(holders) > 1:
            self.paper.box(x + cell / 2 - wide / 2 - 2, middle - size / 2 - 1.5, wide + 4, size + 3, INK)
        ground = bands[0] if is_full else ink.tint(bands[0])
        colour, halo = (BG, None) if len(holders) > 1 else (ink.text_on(ground), ground)
        style = {"size": size, "bold": True, "align": "center", "colour": colour, "halo": halo}
        self.paper.text(words, x + cell / 2, middle + size * 0.36, **style)  # type: ignore[arg-type]

    def _legend(self) -> list[ink.LegendItem]:
        paper, colour = self.paper, ink.OWNERS[0]

        def written(x: float, y: float) -> None:
            paper.box(x + 4, y + 3, 9, 9, colour)
            paper.box(x + 7, y + 6, 3, 3, BG)

        def shared(x: float, y: float) -> None:
            paper.box(x, y + 1, 9, 12, colour)
            paper.box(x + 9, y + 1, 9, 12, ink.OWNERS[1])
            paper.box(x, y + 1, 18, 12, None, INK)

        def cached(x: float, y: float) -> None:
            paper.hatch(x, y + 1, 18, 12, GHOST)
            paper.box(x, y + 1, 18, 12, None, INK3)

        items: list[ink.LegendItem] = []
        if self.count <= 64:
            items = [
                ("token", 18, lambda x, y: paper.box(x + 4, y + 3, 9, 9, colour)),
                ("written this step", 18, written),
                ("empty slot", 18, lambda x, y: paper.box(x + 4, y + 3, 9, 9, ink.tint(colour))),
            ]
        else:
            items = [("held, filled from below", 18, partial(_level_sign, paper, colour))]
        has_prefixes = self.story.head["prefix_caching"]
        if has_prefixes:
            items += [("shared, ref count", 18, shared), ("cached, free to take", 18, cached)]
        items.append(("free", 18, lambda x, y: paper.dotted_box(x, y + 1, 18, 12, INK3)))
        if self.story.others:
            items.append(ink.others_sign(paper))
        if has_prefixes and self.count <= 64:
            items.append(
                ("taking this block evicted a cached prefix", 12, lambda x, y: paper.mark("evicted", x + 6, y + 7))
            )
        return items


def _level_sign(paper: Paper, colour: str, x: float, y: float) -> None:
    paper.box(x + 2, y, 14, 14, ink.edge(colour))
    paper.box(x + 3, y + 1, 12, 12, ink.tint(colour))
    paper.box(x + 3, y + 6, 12, 7, colour)
