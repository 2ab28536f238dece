"""The frozen twin: a picture, a table and a text that say what the view showed."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from collections import Counter
from pathlib import Path

import pytest
from hand_written import preemption_in_blocks, prefix_sharing_in_cells, with_header
from PIL import Image

import llmlab
from llmlab.errors import LlmlabError
from llmlab.trace import BlockDelta, Capabilities, Header, Phase, Request, ScheduledRequest, Step, Trace
from llmlab.trace.whose import of_another
from llmlab.views import twin_paper
from llmlab.views.assets import STATIC
from llmlab.views.kv_now import BlocksNow, kv_after
from llmlab.views.story import Story
from llmlab.views.twin import Twin
from llmlab.views.twin_paper import Paper
from llmlab.views.twin_phases import DECODE, GROW, LOST, NONE, PREFILL, RECOMPUTE, rows_of
from llmlab.views.twin_strips import Strips
from llmlab.views.twin_timeline import draw_timeline

TRACES = sorted((Path(__file__).resolve().parents[2] / "datasets" / "traces").glob("*.jsonl.gz"))
SHARED = Path(__file__).resolve().parents[2] / "datasets" / "traces" / "shared_prefix.jsonl.gz"


def large(num_blocks: int) -> Trace:
    """One request in a cache of this many blocks."""
    header = Header(engine="vllm", capabilities=Capabilities(kv="blocks"), block_size=16, num_blocks=num_blocks)
    row = ScheduledRequest(
        request_id="a", phase="prefill", num_tokens=40, num_computed_tokens=0, num_prompt_tokens=40, num_output_tokens=0
    )
    kv = BlockDelta(allocated={"a": (1, 2, 3)}, num_free=num_blocks - 3, num_blocks=num_blocks, free_head=(4, 5))
    return Trace(header, (), (Step(step=0, t_s=0.1, scheduled=(row,), num_scheduled_tokens=40, num_running=1, kv=kv),))


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_the_text_twin_says_what_the_picture_shows():
    story = Story.of(prefix_sharing_in_cells())
    assert Twin(story, ["kv"], "KV cache").text() == (
        "KV cache · llama.cpp · step 3 of 3\n"
        "8 of 16 cells used (6 shared), 2 holes, 6 padding, 0 not read; attention reads 16\n"
        "c joins: it shares the 6 cells of the common prefix (nothing computed) and 1 cell of its own is written into "
        "1 run. 2 cells that b had left are given up. c finishes (stop); the cells stay for requests that begin alike. "
        "1 of 8 budget tokens used.\n"
        "a kept 7 cells\n"
        "c ended 7 cells"
    )


def test_the_text_twin_of_blocks_names_the_blocks_of_each_request():
    story = Story.of(llmlab.Trace.load(SHARED))
    lines = Twin(story, ["kv"], "KV cache", 0).text().splitlines()
    assert lines[0] == f"KV cache · vLLM 0.26.0 · step {story.steps[0]['n']} of {story.steps[-1]['n']}"
    assert re.fullmatch(
        r"\d+ of 256 blocks held \(\d+ shared\), \d+ cached, \d+ free; [\d\u2009]+ tokens, [\d.]+ % waste", lines[1]
    )
    state = kv_after(story, 0)
    assert isinstance(state, BlocksNow)
    request, table = next(iter(state.tables.items()))
    assert f"{story.name(request)} prefill {state.tokens[request]} tokens blocks {' '.join(map(str, table))}" in lines


def test_above_40_requests_the_text_lists_the_10_largest_and_counts_the_rest():
    story = Story.of(llmlab.Trace.load(next(path for path in TRACES if "burst_of_64" in path.name)))
    lines = Twin(story, ["kv"], "KV cache", 10).text().splitlines()
    assert len(lines) == 3 + 10 + 1
    assert re.fullmatch(r"and \d+ more requests", lines[-1])


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split(".")[0])
def test_the_state_that_is_drawn_is_that_of_the_trace(path: Path):
    trace = llmlab.Trace.load(path)
    story = Story.of(trace)
    names = [request["id"] for request in story.requests]
    for i in range(0, len(story.steps), 7):
        state = kv_after(story, i)
        assert isinstance(state, BlocksNow)
        drawn = {(names[r], k, block) for r, table in state.tables.items() for k, block in enumerate(table)}
        rows = trace.kv(trace.step_records[i].step)
        assert drawn == set(zip(rows.request_id, rows.logical_block, rows.block_id, strict=True))
        assert state.cached >= {row.block_id for row in rows.itertuples() if row.cached}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split(".")[0])
def test_the_picture_is_2000_px_wide_small_and_in_few_colours(path: Path):
    png = Twin(Story.of(llmlab.Trace.load(path)), ["kv", "timeline"], "Run").png()
    assert size_of(png)[0] == 2000 and len(png) <= 150_000
    assert len(Image.open(io.BytesIO(png)).getcolors(256) or []) <= 128


@pytest.mark.parametrize("num_blocks", [20, 300, 2000, 100_000])
def test_a_block_that_is_held_is_painted_in_the_colour_of_its_request(num_blocks: int):
    story = Story.of(large(num_blocks))
    image = Image.open(io.BytesIO(Twin(story, ["kv"], "KV cache").png())).convert("RGB")
    painted = {colour: number for number, colour in image.getcolors(10_000) or []}
    legend = 200 if num_blocks <= 4000 else 0
    assert painted.get(twin_paper.rgb(twin_paper.OWNERS[0]), 0) > legend or num_blocks == 100_000
    assert size_of(Twin(story, ["kv"], "KV cache").png())[1] < 2 * twin_paper.MAX_HEIGHT


def test_the_timeline_shows_the_phases_of_each_request():
    p, q = rows_of(Story.of(preemption_in_blocks()))
    assert list(p.codes) == [PREFILL, GROW, DECODE, NONE, NONE]
    assert list(q.codes) == [PREFILL, LOST, LOST, RECOMPUTE, DECODE]
    assert p.marks == [(2, "finished", 3)]
    assert q.marks == [(1, "preempted", 1), (4, "finished", 3)]


def test_html_is_the_picture_with_its_description_and_the_figures_as_a_table():
    hostile = "<img src=x onerror=alert(1)>"
    story = Story.of(with_header(prefix_sharing_in_cells(), model=hostile))
    twin = Twin(story, ["kv"], hostile)
    page = twin.html()
    assert f'src="data:image/png;base64,{twin.bundle()["image/png"]}"' in page
    assert "8 of 16 cells used (6 shared)" in page.split('alt="')[1].split('"')[0]
    assert "<td>cells read each step</td><td>16</td><td>" in page
    assert "<script" not in page and hostile not in page
    assert twin.bundle().keys() == {"image/png", "text/html", "text/plain"}


def test_before_the_first_step_there_is_a_sentence_and_no_picture():
    for story in (None, Story(Header(engine="vllm"))):
        twin = Twin(story, ["kv"], "KV cache")
        assert twin.bundle() == {"text/plain": "KV cache\nNothing has run yet."}


def test_the_twin_stands_where_somebody_stopped_to_look():
    story = Story.of(llmlab.Trace.load(SHARED))
    assert Twin(story, ["timeline"], "T", 5).text().startswith(f"T · vLLM 0.26.0 · step {story.steps[5]['n']} of")
    assert Twin(story, ["timeline"], "T", 10_000).index == len(story.steps) - 1


def test_colours_are_those_of_the_views():
    source = (STATIC / "theme.js").read_text()
    of_views = dict(re.findall(r"(\w+): \"(#[0-9a-f]{6})\"", source[: source.index("const DARK")]))
    names = {"bg": "BG", "sub": "SUB", "line": "LINE", "ink": "INK", "ink2": "INK2", "ink3": "INK3", "ghost": "GHOST",
             "warn": "WARN", "hit": "HIT"}  # fmt: skip
    assert {name: getattr(twin_paper, python) for name, python in names.items()} == {n: of_views[n] for n in names}
    assert (
        tuple(re.findall("#[0-9a-f]{6}", source[source.index("OWNERS = [") : source.index("];")])) == twin_paper.OWNERS
    )
    ramp = source[source.index("const RAMP = [") :]
    assert tuple(re.findall("#[0-9a-f]{6}", ramp[: ramp.index("];")])) == twin_paper.RAMP
    phases = source[source.index("light: {") : source.index("dark: {")]
    assert dict(re.findall(r"(\w+): \"(#[0-9a-f]{6})\"", phases)) == twin_paper.PHASES


def test_a_name_on_any_ground_has_a_contrast_of_four_and_a_half():
    for grey in range(256):
        ground = f"#{grey:02x}{grey:02x}{grey:02x}"
        on, under = twin_paper.luminance(twin_paper.text_on(ground)), twin_paper.luminance(ground)
        assert (max(on, under) + 0.05) / (min(on, under) + 0.05) >= 4.5, ground


def many_rows(others: bool, *, comes_back: bool = False) -> Trace:
    """49 requests, which are pixels: the first is preempted after its first step, and waits, maybe until the last."""
    names = [f"q{i}" for i in range(49)]
    header = Header(engine="vllm", capabilities=Capabilities(kv="blocks"), block_size=16, num_blocks=64)

    def row(name: str, i: int) -> ScheduledRequest:
        phase: Phase = "prefill" if i == 0 else "recompute" if name == "q0" else "decode"
        return ScheduledRequest(
            request_id=name, phase=phase, num_tokens=1, num_computed_tokens=i, num_prompt_tokens=1, num_output_tokens=i
        )

    is_out = [False, True, True, not comes_back]
    steps = tuple(
        Step(
            step=i, t_s=0.1 * (i + 1), scheduled=tuple(row(name, i) for name in names[out:]),
            num_scheduled_tokens=49 - out, num_running=49 - out, preempted={"q0": 1} if i == 1 else {},
            waiting=("q0",) if out else (), kv=BlockDelta(num_free=64, num_blocks=64),
        )
        for i, out in enumerate(is_out)
    )  # fmt: skip
    asked = [Request(request_id=name, arrival_s=0.0, prompt_token_ids=(1,)) for name in names]
    return Trace(header, tuple(of_another(r) if others and i > 1 else r for i, r in enumerate(asked)), steps)


def pixels_of(trace: Trace) -> Counter[str]:
    picture = Image.open(io.BytesIO(Twin(Story.of(trace), ["timeline"], "Timeline").png())).convert("RGB")
    colours = picture.getcolors(10**6)
    assert colours is not None
    return Counter({f"#{r:02x}{g:02x}{b:02x}": n for n, (r, g, b) in colours})


def test_who_waits_after_a_preemption_is_told_from_who_decodes_without_colours():
    """In grey both are as light: it is dashed, 4 px in 6."""
    colours = pixels_of(many_rows(others=False))
    decode = colours[twin_paper.PHASES["decode"]] / 48
    assert 0.6 < colours[twin_paper.PHASES["lost"]] / decode < 0.75


def test_a_recompute_is_told_from_a_decode_that_takes_a_block_without_colours():
    """In grey both are as dark: of a recompute one pixel of three is paper."""
    paper, story = Paper(1000), Story.of(many_rows(others=False, comes_back=True))
    rows = Strips(paper, story, 3, 14, 40, 972)
    paper.height = draw_timeline(paper, story, 3, 14, 40, 972)
    last_step = 2 * (rows.right - 200), 2 * rows.top, 2 * rows.right, 2 * (rows.top + rows.row_height)  # of the first
    picture = Image.open(io.BytesIO(paper.png())).convert("RGB").crop(last_step)
    counts = {colour: n for n, colour in picture.getcolors() or []}
    recompute = twin_paper.rgb(twin_paper.PHASES["recompute"])
    assert counts.keys() == {recompute, (255, 255, 255)}
    assert counts[255, 255, 255] / counts[recompute] == pytest.approx(0.5, abs=0.02)


def test_in_pixels_too_only_ones_own_requests_have_colours():
    all_own, some = pixels_of(many_rows(others=False)), pixels_of(many_rows(others=True))
    for phase in ("prefill", "decode"):
        own, grey = twin_paper.PHASES[phase], twin_paper.grey_of(twin_paper.PHASES[phase])
        assert all_own[grey] < 2000 < some[grey]
        assert 0 < some[own] < 0.2 * all_own[own]
        assert twin_paper.luminance(grey) == pytest.approx(twin_paper.luminance(own), abs=0.005)


def test_lines_of_a_hatch_go_on_from_one_box_to_the_next():
    one, two = Paper(40), Paper(40)
    one.hatch(0, 0, 40, 10, "#000000", 4, 1)
    two.hatch(0, 0, 15, 10, "#000000", 4, 1)
    two.hatch(15, 0, 25, 10, "#000000", 4, 1)
    one.height = two.height = 10
    pictures = [Image.open(io.BytesIO(paper.png())).convert("L").crop((34, 4, 76, 16)) for paper in (one, two)]
    assert pictures[0].tobytes() == pictures[1].tobytes() and len(set(pictures[0].tobytes())) > 1


class Marked(Paper):
    """Remembers where marks are drawn."""

    def mark(self, kind: str, x: float, y: float) -> None:
        self.__dict__.setdefault("marks", []).append((kind, x, round(y)))
        super().mark(kind, x, y)


def test_a_prefix_hit_hides_neither_the_first_chunk_nor_the_triangle_of_a_preemption():
    story = Story.of(llmlab.recorded("preemption"))
    paper = Marked(1000)
    draw_timeline(paper, story, len(story.steps) - 1, 14, 40, 972)
    marks = paper.__dict__["marks"]
    rows = [[(kind, x) for kind, x, at in marks if at == y] for y in sorted({y for _, _, y in marks})]
    assert sum(("hit", 14 + 138 - 5) in row for row in rows) == 15  # in the gutter
    for row in rows:
        at = {kind: [x for k, x in row if k == kind] for kind in ("hit", "preempted")}
        assert all(abs(hit - lost) >= 6 for hit in at["hit"] for lost in at["preempted"])


# ---- the view around it


def test_a_view_without_a_front_end_shows_its_text_and_its_twin():
    trace = prefix_sharing_in_cells()
    view = llmlab.kv_cache(trace)
    assert repr(view).startswith("KV cache · llama.cpp · step 3 of 3\n8 of 16 cells used")
    picture = b64decode(view._repr_mimebundle_()["image/png"])
    assert size_of(picture)[0] == 2000


def test_views_take_a_trace_its_path_and_say_so_of_anything_else(tmp_path: Path):
    trace = prefix_sharing_in_cells()
    path = trace.save(tmp_path / "run.jsonl.gz")
    assert repr(llmlab.watch(path)) == repr(llmlab.watch(str(path))) == repr(llmlab.watch(trace))
    assert llmlab.watch(trace).title == "Run of 3 requests"
    with pytest.raises(LlmlabError, match=r"Nothing to draw in an object of type int\. Pass a run, a trace"):
        llmlab.watch(7)  # type: ignore[arg-type]


def test_a_saved_page_holds_all_and_needs_no_network(tmp_path: Path):
    path = llmlab.watch(SHARED).to_html(tmp_path / "view.html")
    page = path.read_text()
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert re.search(r"<(script|link|img)[^>]+(src|href)=", page) is None
    assert page.count('"say"') == 120
