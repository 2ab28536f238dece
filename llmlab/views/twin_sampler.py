"""The frozen twin of the sampler playground: its bars where the sliders stand at first. This file knows no widgets."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmlab.views.phrases import number
from llmlab.views.twin import image_html

WIDTH, MARGIN, PITCH = 1000, 14, 30
NUM_BARS, NUM_ROWS = 31, 10
INK, INK2, INK3, GHOST = "#1b2027", "#4d5663", "#69727f", "#868f9d"


class Bar(NamedTuple):
    text: str
    before: float  # share after temperature
    after: float  # chance to be drawn; 0 when it is cut
    cut: str  # the filter that cut it first, "" for none


def sampler_bars(data: Mapping[str, Any], count: int) -> tuple[list[Bar], int, int]:
    """The `count` most likely tokens, how many tokens are kept, and of how many. `data`: of sampler_data().

    The same as samplerKeep() of static/sampler.js: temperature, min-p, top-k, top-p, in this order.
    """
    import numpy as np

    params = data["params"]
    logprobs = np.frombuffer(b64decode(data["logprobs"]), "<f4").astype(np.float64)
    row = np.sort(logprobs)[::-1]
    n = len(row)
    if params["temperature"] == 0:
        shares, left = np.eye(1, n)[0], {"T": 1, "min": 1, "k": 1, "p": 1}
    else:
        weights = np.exp((row - row[0]) / params["temperature"])
        shares = weights / weights.sum()
        least = max(1, int((shares >= params["min_p"] * shares[0]).sum()))
        k = min(least, params["top_k"]) if params["top_k"] > 0 else least
        before = np.concatenate([[0.0], np.cumsum(shares[:k])])
        p = max(1, int((before[:-1] < params["top_p"] * before[-1]).sum())) if params["top_p"] < 1 else k
        left = {"T": n, "min": least, "k": k, "p": p}
    kept = left["p"]
    kept_share = float(shares[:kept].sum())
    bars = []
    for j, (token_id, text) in enumerate(data["texts"][:count]):
        cut = next((name for name, number in left.items() if j >= number), "")
        after = 0.0 if cut else float(shares[j]) / kept_share
        bars.append(Bar(text or f"id {token_id}", float(shares[j]), after, cut))
    return bars, kept, n


def sampler_text(data: Mapping[str, Any]) -> str:
    bars, kept, n = sampler_bars(data, NUM_ROWS)
    lines = [f"{data['title']} · {data['subtitle']}", _kept_words(data, kept, n)]
    for bar in bars:
        end = f"cut by {bar.cut}" if bar.cut else f"{100 * bar.after:.1f} %"
        lines.append(f"{bar.text!r} {100 * bar.before:.1f} % -> {end}")
    return "\n".join(lines)


def sampler_bundle(data: Mapping[str, Any]) -> dict[str, str]:
    png = b64encode(sampler_png(data)).decode()
    text = sampler_text(data)
    described = "\n".join(text.splitlines()[:2])
    return {"image/png": png, "text/html": image_html(png, described), "text/plain": text}


def sampler_png(data: Mapping[str, Any]) -> bytes:
    """1000 px wide at twice the resolution."""
    from llmlab.views.twin_paper import Paper

    paper, x = Paper(WIDTH), MARGIN
    paper.title(data["title"], data["subtitle"], x)
    prompt = data["prompt"].replace("\n", "↵ ")
    paper.text(("…" if len(prompt) > 110 else "") + prompt[-110:], x, 50, size=14, colour=INK3)
    bars, kept, n = sampler_bars(data, NUM_BARS)
    base, tall = 200.0, 116.0
    most = max(max(bar.before, bar.after) for bar in bars)
    for i, bar in enumerate(bars):
        _draw_bar(paper, bar, x + i * PITCH + 2, base, tall / most)
    paper.box(x, base, NUM_BARS * PITCH, 1, INK)
    y = base + 110
    paper.text(_kept_words(data, kept, n), x, y, size=13)
    words = "Dark: kept, with the chance to be drawn in percent. Hatched: cut, with the filter that cut it first."
    paper.text(words, x, y + 22, size=12, colour=INK2)
    paper.height = y + 36
    return paper.png()


def _draw_bar(paper: Any, bar: Bar, x: float, base: float, scale: float) -> None:
    w = PITCH - 5
    high = max(2.0, scale * (bar.before if bar.cut else bar.after))
    if bar.cut:
        paper.hatch(x, base - high, w, high, GHOST, 4)
        paper.box(x, base - high, w, high, None, GHOST)
        paper.text(bar.cut, x + w / 2, base - high - 4, size=11, align="center", colour=INK2)
    else:
        paper.box(x, base - high, w, high, INK2)
        if scale * bar.before > 2:
            paper.box(x, base - scale * bar.before, w, 1.5, "#ffffff")
        share = "<1" if bar.after < 0.005 else f"{100 * bar.after:.0f}"
        top = max(high, scale * bar.before)
        paper.text(share, x + w / 2, base - top - 4, size=11, bold=True, align="center")
    shown = bar.text.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥")
    paper.text_down(shown[:12], x + w / 2, base + 8, size=11.5, bold=not bar.cut, colour=INK3 if bar.cut else INK)


def _kept_words(data: Mapping[str, Any], kept: int, n: int) -> str:
    off = {"temperature": None, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    said = ", ".join(f"{name}={data['params'][name]}" for name, value in off.items() if data["params"][name] != value)
    return f"{number(kept)} of {number(n)} tokens kept · {said}"
