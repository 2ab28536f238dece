"""The frozen twin of an answer: its tokens as text that can be selected, and as a picture, coloured by probability.

Colours and classes are those of static/llmlab.css and static/tokens_geometry.js, light (a test compares them). This
file must not know widgets.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

WIDTH, MARGIN = 1000, 14
MOST_LINES = 40  # of the picture; text and HTML have all
INK, INK2, INK3, LINE, GHOST = "#1b2027", "#4d5663", "#69727f", "#d5d9e0", "#868f9d"
Token = Mapping[str, Any]


class TokenClass(NamedTuple):
    least: float  # probability from which on
    colour: str  # "": none
    rule: str  # the underline: it tells the class without the colour
    name: str


CLASSES = (
    TokenClass(0.9, "", "0 solid", "p ≥ .9"),
    TokenClass(0.5, "#fdf3d0", "1px solid", ".5–.9"),
    TokenClass(0.2, "#fbe0a0", "2px solid", ".2–.5"),
    TokenClass(0.05, "#f7bf62", "3px solid", ".05–.2"),
    TokenClass(0.0, "#ee9440", "3px double", "< .05"),
)


def class_of(token: Token) -> int | None:
    """0 (sure) to 4 (surprising); None when the probability is not known."""
    if token["logprob"] is None:
        return None
    probability = math.exp(token["logprob"])
    return next(i for i, kind in enumerate(CLASSES) if probability >= kind.least)


def tokens_bundle(data: Mapping[str, Any], text: str) -> dict[str, str]:
    """`data`: of tokens_data(); `text`: the answer as text."""
    bundle = {"text/html": tokens_html(data), "text/plain": text}
    return {"image/png": b64encode(tokens_png(data)).decode(), **bundle} if data["tokens"] else bundle


def tokens_html(data: Mapping[str, Any]) -> str:
    """The answer as text: each token with its number and probability as a tooltip. No script."""
    words = "".join(_token_html(token) for token in data["tokens"])
    head = f"<div><b>{escape(data['title'])}</b> {escape(data['subtitle'])}</div>"
    style = f"white-space:pre-wrap;line-height:2;padding:4px 6px;color:{INK};background:#fff"
    return f"{head}<div style='{style}'>{words}</div>"


def _token_html(token: Token) -> str:
    kind = class_of(token)
    told = "" if kind is None else f", {100 * math.exp(token['logprob']):.1f} %"
    style = f" style='background:{CLASSES[kind].colour};border-bottom:{CLASSES[kind].rule} {INK}'" if kind else ""
    return f"<span title='token {token['id']}{told}'{style}>{escape(token['text'] or token['mark'])}</span>"


def tokens_png(data: Mapping[str, Any]) -> bytes:
    """Title, answer, legend and the time to each token, 1000 px wide at twice the resolution."""
    from llmlab.views.twin_paper import Paper

    paper, x, width = Paper(WIDTH), MARGIN, WIDTH - 2 * MARGIN
    paper.title(data["title"], data["subtitle"], x)
    prompt = (data["prompt"] or "").replace("\n", "↵ ")
    y = 50.0
    if prompt:
        y = (
            paper.words([(prompt[:400] + ("…" if len(prompt) > 400 else ""), False)], x, y, width, size=13, colour=INK3)
            + 32
        )
    y = _draw_text(paper, data["tokens"], x, y, width)
    if any(token["logprob"] is not None for token in data["tokens"]):
        y = paper.legend([(kind.name, 28, _swatch(paper, i)) for i, kind in enumerate(CLASSES)], x, y, width)
    paper.height = _draw_times(paper, data, x, y + 34, width) + 10
    return paper.png()


def _draw_text(paper: Any, tokens: list[Token], x: float, y: float, width: float) -> float:
    """Running text, a box a token; the top of what follows."""
    size, line_height = 17, 35
    at, lines = x, 1
    for n, token in enumerate(tokens):
        words = token["text"] or token["mark"]
        body = words.strip(" \n")
        shown = (body or words.replace(" ", "·")).replace("\n", "↵")
        if body:
            at += paper.text_width(" ", size=size) * (len(words) - len(words.lstrip(" ")))
        wide = paper.text_width(shown, size=size)
        if at > x and at + wide > x + width:
            at, y, lines = x, y + line_height, lines + 1
        if lines > MOST_LINES:
            paper.text(f"and {len(tokens) - n} more tokens", x, y, size=12, colour=INK2)
            break
        _draw_mark(paper, class_of(token), at, y - 17, wide, 23)
        paper.text(shown, at, y, size=size, colour=INK if token["text"] else INK2)
        at += wide + 1.5
        feeds = words.count("\n")
        if feeds:
            at, y, lines = x, y + line_height * min(2, feeds), lines + feeds
    return y + 24


def _draw_mark(paper: Any, kind: int | None, x: float, y: float, w: float, h: float) -> None:
    """Ground and underline of a class."""
    if not kind:
        return
    paper.box(x, y, w, h, CLASSES[kind].colour, radius=2)
    if kind < 4:
        paper.box(x, y + h - kind, w, kind, INK)
        return
    for row in (0, 2):
        paper.box(x, y + h - 3 + row, w, 1, INK)


def _swatch(paper: Any, kind: int) -> Any:
    def draw(x: float, y: float) -> None:
        _draw_mark(paper, kind, x, y, 28, 14)
        if not kind:
            paper.box(x, y, 28, 14, None, LINE)

    return draw


def _draw_times(paper: Any, data: Mapping[str, Any], x: float, y: float, width: float) -> float:
    """A bar a token, linear to three times the median gap; a longer one is cut, with its number."""
    gaps = [token["gap_ms"] for token in data["tokens"]]
    paper.text(f"Time to each token ({data['timed']}, {data['source']})", x, y, size=11.5, bold=True, colour=INK2)
    middle = data["median_gap_ms"]
    top, high, left = (3 * middle if middle else max(gaps) or 1), 54, x + 64
    base, pitch = y + 84, min(24.0, (width - 74) / len(gaps))
    wide = max(0.5, pitch - (2 if pitch > 4 else 0.5))
    paper.text(f"{top:.0f} ms", left - 8, base - high + 4, size=11, align="right", colour=INK2)
    for value in (0, high):
        paper.box(left, base - value, width - 74, 1, LINE)
    free = left  # where the next number may begin
    for n, gap in enumerate(gaps):
        tall, at = high * min(1.0, gap / top), left + n * pitch
        paper.box(at, base - tall, wide, tall, INK2 if n == 0 else GHOST)
        if gap > top:
            for lower in (8, 13):
                paper.line(
                    [(at - 1, base - high + lower), (at + pitch + 1, base - high + lower - min(7, pitch))], "#ffffff", 2
                )
        words = f"first token {gap:.0f} ms" if n == 0 else f"{gap:.0f} ms"
        if (n == 0 or gap > top) and at >= free:
            paper.text(words, at, base - high - 5, size=11.5, bold=True)
            free = at + paper.text_width(words, size=11.5, bold=True) + 8
    if middle:
        paper.dashes(left, x + width - 10, base - high / 3, INK, 5, 3)
        paper.text(
            f"median gap {middle:.1f} ms",
            x + width - 10,
            base - high / 3 - 5,
            size=11.5,
            bold=True,
            align="right",
            halo="#ffffff",
        )
    return base + 8
