"""What stays where a view was shown: tokens and sampler as twins, the end of a trace, very large caches."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode

import hand_written
import numpy as np
import pytest
from hand_written import share, step
from live_support import load_fake
from msgspec.structs import replace
from PIL import Image
from test_tokens import FakeHandle, answer, token

import llmlab
from llmlab.engines import registry
from llmlab.trace import CellDelta, Incident, Request, Trace
from llmlab.views import display, twin_tokens
from llmlab.views.assets import STATIC
from llmlab.views.kv_now import BlocksNow, empty_kv, kv_after
from llmlab.views.story import Story
from llmlab.views.twin import Twin
from llmlab.views.twin_overview import Overview
from llmlab.views.twin_paper import OWNERS, rgb
from llmlab.views.twin_sampler import sampler_bars
from llmlab.views.twin_tokens import CLASSES, class_of, tokens_bundle

HOSTILE = "<img src=x onerror=alert(1)>"


def painted(png: bytes) -> dict[tuple[int, ...], int]:
    """Colour -> pixels."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size[0] == 2000
    return {colour: number for number, colour in image.getcolors(100_000) or []}


# ---- tokens and sampler


def test_the_twin_of_an_answer_is_text_and_a_picture_that_tell_the_class_of_each_token():
    tokens = [token(1, " sure", 0.95), token(2, " well", 0.6), token(3, " odd", 0.01), token(4, HOSTILE, 0.3)]
    data = twin_data(*tokens)
    bundle = tokens_bundle(data, "text")
    assert bundle.keys() == {"image/png", "text/html", "text/plain"}
    assert [class_of(t) for t in data["tokens"]] == [0, 1, 4, 2]
    page = bundle["text/html"]
    assert "<img" not in page and "token 3, 1.0 %" in page
    assert f"background:{CLASSES[4].colour};border-bottom:3px double" in page
    colours = painted(b64decode(bundle["image/png"]))
    assert colours[rgb(CLASSES[4].colour)] > 500 and colours[rgb(CLASSES[1].colour)] > 500
    assert rgb(CLASSES[3].colour) in colours  # only in the legend


def twin_data(*tokens, **fields):
    from llmlab.views.tokens import tokens_data

    return tokens_data(answer(*tokens, **fields))


def test_without_probabilities_or_tokens_nothing_is_coloured():
    colours = painted(b64decode(tokens_bundle(twin_data(token(1, " a"), token(2, "\n")), "a")["image/png"]))
    assert not {rgb(kind.colour) for kind in CLASSES if kind.colour} & set(colours)
    assert "image/png" not in tokens_bundle(twin_data(), "")


def test_classes_and_colours_of_the_twin_are_those_of_the_view():
    style, geometry = (STATIC / "llmlab.css").read_text(), (STATIC / "tokens_geometry.js").read_text()
    light = style[style.index(".llmlab-tokens {") :]
    of_view = re.findall(r"--ll-p[1-4]: (#[0-9a-f]{6})", light[: light.index("}")])
    assert [kind.colour for kind in CLASSES] == ["", *of_view]
    names = json.loads(re.search(r"TOKENS_CLASS_NAMES = (\[.*?\]);", geometry)[1])  # type: ignore[index]
    assert [kind.name for kind in CLASSES] == names
    least = json.loads(re.search(r"CLASS_FROM = (\[.*?\]);", geometry)[1])  # type: ignore[index]
    assert [kind.least for kind in CLASSES] == least
    widths = re.findall(r"\.llmlab-token-p\d \{[^}]*border-bottom-width: (\d)px", style)
    assert [kind.rule[:1] for kind in CLASSES] == ["0", *widths]
    ink = re.search(r"--ll-ink: (#[0-9a-f]{6})", style)
    assert ink is not None and ink[1] == twin_tokens.INK


@pytest.mark.parametrize(
    ("params", "kept", "cut"),
    [
        ({"temperature": 1.0}, 50, ""),
        ({"temperature": 1.0, "top_k": 3}, 3, "k"),
        ({"temperature": 1.0, "top_p": 0.2}, 1, "p"),
        ({"temperature": 1.0, "min_p": 0.5}, 3, "min"),  # token i has e^(-i/4) of the first
        ({"temperature": 0.0}, 1, "T"),
    ],
)
def test_the_twin_of_the_sampler_keeps_what_the_sliders_keep(params, kept, cut):
    view = llmlab.sampler(FakeHandle(), "Hi", **params)
    bars, number, n = sampler_bars(view.data, 10)
    assert (number, n) == (kept, 50)
    assert bars[9].cut == cut
    assert sum(bar.after for bar in bars) == pytest.approx(1 if kept <= 10 else sum(b.before for b in bars))
    assert repr(view).splitlines()[1].startswith(f"{kept} of 50 tokens kept")


def test_the_sampler_is_a_view_that_can_be_written_and_frozen(tmp_path):
    view = llmlab.sampler(FakeHandle(), "Hi")
    bundle = view._repr_mimebundle_()
    assert bundle.keys() == {"image/png", "text/html", "text/plain"}
    assert painted(b64decode(bundle["image/png"]))[rgb("#4d5663")] > 1000  # bars that are kept
    page = view.to_html(tmp_path / "sampler.html").read_text()
    (told,) = re.findall(r'"logprobs": "([^"]+)"', page)
    assert np.frombuffer(b64decode(told), "<f4").size == 50
    widget = view.widget
    assert json.loads(widget.data)["texts"][0] == [0, "t0"] and widget.place == ""
    view.left()
    assert widget.comm is None


# ---- where it is shown


def test_a_twin_is_put_only_where_a_cell_showed_the_view(monkeypatch: pytest.MonkeyPatch):
    published: list[bool] = []
    monkeypatch.setattr(display, "publish", lambda bundle, display_id, *, update=False: published.append(update))
    monkeypatch.setattr(display, "place", lambda: "file")
    monkeypatch.setattr(display.CELLS, "add", lambda view: None)
    view = llmlab.watch(hand_written.preemption_in_blocks())
    view.freeze()
    view.republish()
    assert published == []
    view._ipython_display_()
    view.freeze()
    assert published == [False, True]


# ---- the end of a trace


def test_an_engine_that_died_is_told_with_the_last_step_once():
    trace = hand_written.preemption_in_blocks()
    trace = Trace(trace.header, trace.request_records, trace.step_records[:3], (died("SIGSEGV"),))
    story = Story.of(trace)
    words = "".join(text for text, _ in story.steps[-1]["say"])
    assert words.endswith(" The engine died at step 3: SIGSEGV. The trace up to step 2 is kept.")
    assert story.head["incident"]["kind"] == "died"
    story.tell_end((died("SIGSEGV"),))
    assert "".join(text for text, _ in story.steps[-1]["say"]) == words
    assert "The engine died at step 3" in repr(llmlab.watch(trace))


def died(text: str) -> Incident:
    return Incident(incident="died", t_s=1.0, requests=("q",), text=text)


def test_a_trace_that_broke_off_says_why_and_one_without_steps_says_nothing():
    trace = hand_written.preemption_in_blocks()
    cut = Incident(incident="cut", t_s=1.0, text="line 4 is broken")
    story = Story.of(Trace(trace.header, trace.request_records, trace.step_records[:2], (cut,)))
    assert story.steps[-1]["say"][-1][0].endswith("The trace ends with step 1: line 4 is broken.")
    assert "incident" not in Story.of(Trace(trace.header, trace.request_records, (), (cut,))).head


# ---- KV cache groups


def test_with_several_groups_each_block_has_the_tokens_that_the_trace_says():
    asked = (Request(request_id="p", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4, 5)),)
    changes = (
        hand_written.blocks(0, allocated={"p": (0, 1, 2)}, groups={"p": (0, 0, 1)}, ref_counts={0: 1, 1: 1, 2: 1}),
        hand_written.blocks(1, freed={"p": (2,)}, ref_counts={2: 0}),
    )
    rows = [share("p", "prefill", 5, 0, 5, 0), share("p", "decode", 1, 5, 5, 1)]
    steps = tuple(step(i, [rows[i]], changes[i], {"p": 7}) for i in range(2))
    trace = Trace(hand_written.preemption_in_blocks().header, asked, steps)
    story = Story.of(trace)
    for i in range(2):
        state = kv_after(story, i)
        assert isinstance(state, BlocksNow)
        drawn = [(state.logical(0, block), block, state.fill(block)) for block in state.tables[0]]
        told = trace.kv(i)
        assert drawn == list(zip(told.logical_block, told.block_id, told.num_tokens, strict=True))
    late = empty_kv({**story.head, "start": kv_after(story, 0).snapshot()})
    assert isinstance(late, BlocksNow) and late.logical(0, 2) == 0


# ---- very large caches


def test_an_overview_takes_2_px_then_1_px_then_several_things_a_dot():
    assert (Overview.fit(20_000, 0, 0, 684).px, Overview.fit(20_000, 0, 0, 684).each) == (2, 1)
    assert (Overview.fit(100_000, 0, 0, 684).px, Overview.fit(100_000, 0, 0, 684).each) == (1, 1)
    many = Overview.fit(1_000_000, 0, 0, 684)
    assert (many.px, many.each, many.height) == (1, 6, 244)
    assert many.corner(6 * 684 + 7) == (1, 1)


def test_the_twin_of_very_many_cells_has_an_overview_and_a_window_where_something_is_written():
    header = replace(hand_written.prefix_sharing_in_cells().header, num_cells=32_768)
    asked = (Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1,) * 900),)
    kv = CellDelta(written={"a": ((20_000, 0, 900),)}, num_used=900, num_cells=32_768, num_attended=20_992, head=20_900)
    trace = Trace(header, asked, (step(0, [share("a", "prefill", 900, 0, 900, 0)], kv, {"a": 7}),))
    colours = painted(Twin(Story.of(trace), ["kv"], "KV cache").png())
    # 900 dots of 2 x 2 px, and in the window whole rows of large cells, at twice the resolution
    assert colours[rgb(OWNERS[0])] > 900 * 16 + 200 * 100


def test_a_death_in_a_live_run_is_told_in_its_twin(monkeypatch: pytest.MonkeyPatch):
    run = load_fake(step_s=0.001).batch(["one"], max_tokens=5)
    run.wait()
    view, trace = llmlab.watch(run), run.trace
    assert "died" not in repr(view)
    monkeypatch.setattr(type(run), "died", property(lambda self: True))
    told = Trace(trace.header, trace.request_records, trace.step_records, (died("killed"),))
    monkeypatch.setattr(type(run), "trace", property(lambda self: told))
    assert "The engine died at step 5: killed." in repr(view)
    registry.unload(all=True)
