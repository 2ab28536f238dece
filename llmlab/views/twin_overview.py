"""The overview of very many blocks or cells in a frozen twin: pixels of all, and the frame of the window below them.

This file must not know blocks from cells, nor runs, files or notebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from llmlab.views.twin_paper import BG, INK, INK3, Paper

MAX_HEIGHT = 260


@dataclass(frozen=True)
class Overview:
    """`count` things in rows of `columns` dots of px x px, `each` of them a dot; (x, y): the upper left corner."""

    count: int
    columns: int
    px: int
    each: int
    x: float
    y: float

    @classmethod
    def fit(cls, count: int, x: float, y: float, width: float) -> Overview:
        """2 px a dot, 1 px when that is too high, then several things a dot."""
        inside, px, each = int(width), 2, 1
        while math.ceil(math.ceil(count / each) / (inside // px)) * px > MAX_HEIGHT:
            px, each = (1, each) if px == 2 else (1, each + 1)
        return cls(count, inside // px, px, each, x, y)

    @property
    def height(self) -> int:
        return math.ceil(math.ceil(self.count / self.each) / self.columns) * self.px

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def corner(self, k: int) -> tuple[float, float]:
        """Of the dot with the k-th thing."""
        dot = k // self.each
        return self.x + dot % self.columns * self.px, self.y + dot // self.columns * self.px

    def draw(self, paper: Paper, colour: Callable[[range, bool], str]) -> None:
        """`colour`: of the things that share a dot; the flag is that of a checker."""
        colours = []
        for dot in range(math.ceil(self.count / self.each)):
            row, column = divmod(dot, self.columns)
            things = range(dot * self.each, min(self.count, (dot + 1) * self.each))
            colours.append(colour(things, (row + column) % 2 == 1))
        colours += [BG] * (-len(colours) % self.columns)
        paper.pixels(self.columns, colours, self.x, self.y, self.px, self.px)
        paper.box(self.x - 1, self.y - 1, self.columns * self.px + 2, self.height + 2, None, INK3)

    def frame(self, paper: Paper, first: int, last: int) -> None:
        """The outline of the k-th things from `first` to `last`: a box in one row, else a band with steps."""
        (ax, ay), (bx, by) = self.corner(first), self.corner(last)
        left, right, px = self.x, self.x + self.columns * self.px, self.px
        if ay == by:
            points = [(ax, ay), (bx + px, ay), (bx + px, ay + px), (ax, ay + px), (ax, ay)]
        else:
            points = [(ax, ay), (right, ay), (right, by), (bx + px, by), (bx + px, by + px), (left, by + px)]
            points += [(left, ay + px), (ax, ay + px), (ax, ay)]
        paper.line(points, BG, 4)
        paper.line(points, INK, 1.8)
