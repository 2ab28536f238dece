"""Paper of the frozen twins: the light theme, and marks in CSS pixels at twice the resolution.

Colours are those of static/theme.js (a test compares them). This file must not know what is drawn.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageFont

SCALE = 2
MAX_HEIGHT = 1900
MAX_COLOURS = 128

BG, SUB, LINE, INK, INK2, INK3 = "#ffffff", "#f5f6f8", "#d5d9e0", "#1b2027", "#4d5663", "#69727f"
GHOST, WARN, HIT = "#868f9d", "#b3380b", "#0b6b63"
OWNERS = (
    "#405aba", "#ee9e30", "#9a377e", "#94c294", "#3b89c2", "#d4b4fc", "#858c16", "#7d97fb", "#a26676", "#b4e787",
    "#706238", "#b094af",
)  # fmt: skip
GREYS = ("#8d96a3", "#b3bac4")  # requests of other clients
RAMP = ("#46307e", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#d8e219")
PHASES = {
    "prefill": "#1f3f8f", "grow": "#3f66b5", "decode": "#8fabd9", "waiting": "#d3d9e1", "recompute": "#b3380b",
    "lost": "#e8a585",
}  # fmt: skip
# More requests than this share colours, or the picture would have more than MAX_COLOURS.
MAX_RAMP = 24

# Words, width of the sign in px, and what draws it with its upper left corner at (x, y).
LegendItem = tuple[str, float, Callable[[float, float], None]]
Align = Literal["left", "center", "right"]
_ANCHORS: dict[Align, str] = {"left": "ls", "center": "ms", "right": "rs"}
_FONTS = {
    False: ("LiberationSans-Regular", "Arial", "DejaVuSans"),
    True: ("LiberationSans-Bold", "Arial Bold", "DejaVuSans-Bold"),
}
_RARE = frozenset("↵⇥")  # DejaVu has them
# None of these has Chinese signs: fonts of Linux, Windows and macOS that do.
_CHINESE = re.compile("[\u2e80-\uffef]")
# Where a line may end: after a Chinese sign, and the marks that belong to it.
_PIECES = re.compile("[\u2e80-\uffef][\uff01-\uff1f\u3001-\u3011\u201d]*|[^\u2e80-\uffef]+")
_CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "simhei.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc",
    "STHeiti Light.ttc", "Arial Unicode.ttf",
)  # fmt: skip


@cache
def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mix(a: str, b: str, share: float) -> str:
    """The colour `share` of the way from a to b.

    >>> mix("#000000", "#ffffff", 0.5)
    '#808080'
    """
    return "#" + "".join(f"{int(x + (y - x) * share + 0.5):02x}" for x, y in zip(rgb(a), rgb(b), strict=True))


def owner(index: int, count: int, others: Collection[int] = ()) -> str:
    """Colour of request `index`, of `count` in the story; `others` are those of other clients, and grey."""
    if index in others:
        return GREYS[index % 2]
    if count <= len(OWNERS):
        return OWNERS[index % len(OWNERS)]
    place = (
        round(index / max(1, count - 1) * (MAX_RAMP - 1)) / (MAX_RAMP - 1) if count > MAX_RAMP else index / (count - 1)
    )
    at = place * (len(RAMP) - 1)
    low = min(len(RAMP) - 2, int(at))
    colour = mix(RAMP[low], RAMP[low + 1], at - low)
    return colour if index % 2 else mix(colour, "#000000", 0.14)


def edge(colour: str) -> str:
    """The outline of a fill."""
    return mix(colour, "#000000", 0.42)


def tint(colour: str) -> str:
    """A slot that nothing was written to."""
    return mix(colour, BG, 0.84)


def luminance(colour: str) -> float:
    """Relative, 0 to 1."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def text_on(colour: str) -> str:
    """The text colour that can be read on a fill."""
    return "#000000" if luminance(colour) > 0.179 else "#ffffff"


def grey_of(colour: str) -> str:
    """The grey that is as light as a colour."""
    light = luminance(colour)
    value = light * 12.92 if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
    return "#" + 3 * f"{int(255 * value + 0.5):02x}"


@cache
def font(size: float, is_bold: bool, has_rare: bool = False) -> Any:
    for name in reversed(_FONTS[is_bold]) if has_rare else _FONTS[is_bold]:
        try:
            return ImageFont.truetype(f"{name}.ttf", size * SCALE)
        except OSError:
            continue
    return ImageFont.load_default(size * SCALE)  # Pillow carries one


@cache
def chinese_font(size: float) -> Any:
    """None where no font here has Chinese signs."""
    for name in _CHINESE_FONTS:
        try:
            return ImageFont.truetype(name, size * SCALE)
        except OSError:
            continue
    return None


def can_write(value: str) -> bool:
    return not _CHINESE.search(value) or chinese_font(12) is not None


def _font_of(value: str, size: float, is_bold: bool) -> Any:
    if _CHINESE.search(value) and (found := chinese_font(size)):
        return found
    return font(size, is_bold, not _RARE.isdisjoint(value))


class Paper:
    """A picture `width` CSS px wide that grows downwards; what is drawn below MAX_HEIGHT is lost."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, 0.0
        self._image = Image.new("RGB", (width * SCALE, MAX_HEIGHT * SCALE), BG)
        self._draw = ImageDraw.Draw(self._image)
        self._colours: Counter[str] = Counter()

    def box(
        self, x: float, y: float, w: float, h: float, fill: str | None = None, outline: str | None = None,
        *, radius: float = 0, thick: float = 1,
    ) -> None:  # fmt: skip
        if w <= 0 or h <= 0:
            return
        self._note(fill, outline)
        corners = [x * SCALE, y * SCALE, (x + w) * SCALE - 1, (y + h) * SCALE - 1]
        corners = [corners[0], corners[1], max(corners[0], corners[2]), max(corners[1], corners[3])]
        width = max(1, round(thick * SCALE)) if outline else 0
        self._draw.rounded_rectangle(corners, radius * SCALE, fill, outline, width)

    def line(self, points: Sequence[tuple[float, float]], colour: str, thick: float = 1) -> None:
        self._note(colour)
        self._draw.line(
            [(x * SCALE, y * SCALE) for x, y in points], colour, max(1, round(thick * SCALE)), joint="curve"
        )

    def dashes(self, x0: float, x1: float, y: float, colour: str, on: float, off: float, thick: float = 1) -> None:
        x = x0
        while x < x1:
            self.line([(x, y), (min(x1, x + on), y)], colour, thick)
            x += on + off

    def dotted_box(self, x: float, y: float, w: float, h: float, colour: str, on: float = 2, off: float = 3) -> None:
        for side in (y + 0.5, y + h - 0.5):
            self.dashes(x, x + w, side, colour, on, off)
        top = y
        while top < y + h:
            for side in (x + 0.5, x + w - 0.5):
                self.line([(side, top), (side, min(y + h, top + on))], colour)
            top += on + off

    def polygon(self, points: Sequence[tuple[float, float]], fill: str) -> None:
        self._note(fill)
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill)

    def hatch(self, x: float, y: float, w: float, h: float, colour: str, gap: float = 5, thick: float = 1.2) -> None:
        """Lines from lower left to upper right; those of boxes side by side go on in each other."""
        i = -h + -(x + y) % gap
        while i < w:
            start, end = max(0.0, -i), min(h, w - i)  # how far along the line is inside
            if end > start:
                self.line([(x + i + start, y + h - start), (x + i + end, y + h - end)], colour, thick)
            i += gap

    def text(
        self, value: str, x: float, y: float, *, size: float = 12, bold: bool = False, colour: str = INK,
        align: Align = "left", halo: str | None = None,
    ) -> None:  # fmt: skip
        """`y` is the baseline."""
        self._note(colour, halo)
        stroke = {"stroke_width": 3.0 if halo else 0.0, "stroke_fill": halo}
        draw: Any = self._draw.text  # its type says less than it takes
        draw((x * SCALE, y * SCALE), value, colour, _font_of(value, size, bold), _ANCHORS[align], **stroke)

    def title(self, title: str, subtitle: str, x: float) -> None:
        """The head of a view, as on its page: the subtitle stands beside the title."""
        self.text(title, x, 24, size=15, bold=True)
        self.text(subtitle, x + self.text_width(title, size=15, bold=True) + 10, 24, size=13, colour=INK2)

    def text_width(self, value: str, *, size: float = 12, bold: bool = False) -> float:
        return float(self._draw.textlength(value, _font_of(value, size, bold))) / SCALE

    def text_down(
        self, value: str, x: float, y: float, *, size: float = 12, bold: bool = False, colour: str = INK
    ) -> None:
        """From top to bottom, from (x, y) down."""
        self._note(colour)
        wide, high = round(self.text_width(value, size=size, bold=bold) * SCALE) + 2, round(1.4 * size * SCALE)
        strip = Image.new("RGB", (max(1, wide), high), BG)
        draw: Any = ImageDraw.Draw(strip).text
        draw((0, high * 0.75), value, colour, _font_of(value, size, bold), "ls")
        turned = strip.rotate(-90, expand=True)
        self._image.paste(turned, (round(x * SCALE - high / 2), round(y * SCALE)))

    def words(
        self, parts: Sequence[tuple[str, bool]], x: float, y: float, width: float, *, size: float = 14,
        colour: str = INK,
    ) -> float:  # fmt: skip
        """Sentences, [words, is bold], broken into lines; the baseline of the last line."""
        at, line_height = x, size * 1.4
        for words, is_bold in parts:
            for word in _split(words):
                wide = self.text_width(word, size=size, bold=is_bold)
                if at + wide > x + width and word.strip():
                    at, y = x, y + line_height
                if at > x or word.strip():
                    self.text(word, at, y, size=size, bold=is_bold, colour=colour)
                    at += wide
        return y

    def pill(self, words: str, right: float, y: float, *, filled: bool = False) -> None:
        wide = self.text_width(words, size=11, bold=True) + 10
        self.box(right - wide, y, wide, 15, INK if filled else BG, INK, radius=3)
        self.text(words, right - wide / 2, y + 11.5, size=11, bold=True, align="center", colour=BG if filled else INK)

    def mark(self, kind: str, x: float, y: float) -> None:
        """A sign of an event, centred: preempted, hit, finished, aborted, failed, evicted."""
        if kind == "preempted":
            self.polygon([(x - 4, y - 4), (x + 4, y - 4), (x, y + 3)], WARN)
        elif kind == "hit":
            self.line([(x, y - 4.5), (x + 4, y - 0.5), (x, y + 3.5), (x - 4, y - 0.5), (x, y - 4.5)], HIT, 1.6)
        elif kind == "finished":
            self.box(x - 2.5, y - 3, 5, 5, INK2)
        else:
            colour = INK if kind == "aborted" else WARN
            self.line([(x - 3, y - 3), (x + 3, y + 3)], colour, 1.5)
            self.line([(x + 3, y - 3), (x - 3, y + 3)], colour, 1.5)

    def legend(self, items: Sequence[LegendItem], x: float, y: float, width: float) -> float:
        """Signs with their words; where the last line ends."""
        at = x
        for words, wide, draw in items:
            whole = wide + 6 + self.text_width(words)
            if at > x and at + whole > x + width:
                at, y = x, y + 20
            draw(at, y)
            self.text(words, at + wide + 6, y + 11.5, colour=INK2)
            at += whole + 14
        return y + 16

    def pixels(self, columns: int, colours: Sequence[str], x: float, y: float, wide: float, high: float) -> None:
        """A raster of cells, row by row, each wide x high."""
        self._note(*set(colours))
        rows = -(-len(colours) // columns)
        raster = Image.new("RGB", (columns, rows), BG)
        raster.putdata([rgb(colour) for colour in colours])
        size = round(columns * wide * SCALE), round(rows * high * SCALE)
        self._image.paste(raster.resize(size, Image.Resampling.NEAREST), (round(x * SCALE), round(y * SCALE)))

    def png(self) -> bytes:
        """The picture down to `height`, in at most 128 colours."""
        image = self._image.crop((0, 0, self.width * SCALE, round(min(self.height, MAX_HEIGHT) * SCALE)))
        image = image.quantize(palette=self._palette(), dither=Image.Dither.NONE)
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def _palette(self) -> Image.Image:
        """The colours that were used, and those on the way from ink to paper, which the edges of letters have."""
        steps = [mix(ink, ground, i / 5) for ink in (INK, INK2) for ground in (BG, SUB) for i in (1, 2, 3, 4)]
        colours = list(dict.fromkeys([BG, INK, *steps, *(c for c, _ in self._colours.most_common(MAX_COLOURS))]))
        palette = Image.new("P", (1, 1))
        palette.putpalette([v for colour in colours[:MAX_COLOURS] for v in rgb(colour)])
        return palette

    def _note(self, *colours: str | None) -> None:
        self._colours.update(colour for colour in colours if colour)


def _split(words: str) -> list[str]:
    """Words with the space before each, so that joining them gives the text again; each Chinese sign is a word."""
    parts: list[str] = []
    for i, word in enumerate(words.split(" ")):
        if i:
            parts.append(" ")
        parts += _PIECES.findall(word)
    return parts


def others_sign(paper: Paper) -> LegendItem:
    """The sign of a legend for what is grey: it is not one's own."""
    return "of other clients", 12, lambda x, y: paper.box(x, y + 1.5, 12, 12, GREYS[0])
