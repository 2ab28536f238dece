"""The charts: what they draw of a trace, what they leave out and say so, and that they do on any paper."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llmlab import metrics
from llmlab.errors import LlmlabError
from llmlab.models import ModelConfig
from llmlab.trace import (
    BlockDelta,
    Capabilities,
    CellDelta,
    Header,
    Request,
    ScheduledRequest,
    Step,
    Token,
    Trace,
)
from llmlab.trace.example import two_requests
from llmlab.views import plots
from llmlab.views.plots import ceilings
from llmlab.views.plots.work import decode_work, prefill_work

RECORDED = Path(__file__).resolve().parents[2] / "datasets" / "traces"
OF_A_TRACE = [plots.latency, plots.kv_use, plots.prefix_hits, plots.tokens_per_step]
SMOLLM2 = ModelConfig("llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, tie_embeddings=True)


def texts(figure: Any) -> str:
    """All that is written around the picture."""
    title = figure.layout.title
    return " / ".join([title.text, title.subtitle.text, *(a.text for a in figure.layout.annotations)])


def values(figure: Any, number: int = 0) -> list[tuple[float, Any]]:
    return list(zip(figure.data[number].x, figure.data[number].y, strict=True))


def long_trace(num_steps: int) -> Trace:
    """One request that decodes all the time, on blocks that fill up and empty again; step 7 preempts someone."""
    steps = tuple(
        Step(
            step=i,
            t_s=i + 1.0,
            scheduled=(_decode("a", i),),
            num_scheduled_tokens=1,
            num_running=1,
            preempted=("b",) if i == 7 else (),
            tokens=(Token(request_id="a", token_id=1),),
            kv=BlockDelta(num_free=10 - i % 10, num_blocks=11),
        )
        for i in range(num_steps)
    )
    request = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1,))
    return Trace(Header(engine="simulated", source="simulated"), (request,), steps)


def _decode(request_id: str, i: int) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=request_id,
        phase="decode",
        num_tokens=1,
        num_computed_tokens=i,
        num_prompt_tokens=1,
        num_output_tokens=i,
    )


# ---- latency


def test_latency_curves_rise_by_the_share_of_each_value():
    ttft, _, _, itl, *_ = plots.latency(two_requests()).data
    # TTFT 1 and 1.5 s; gaps of 1, 2 and 2 s
    assert (list(ttft.x), list(ttft.y)) == ([1.0, 1.0, 1.5], [0, 50, 100])
    assert list(itl.x) == [1.0, 1.0, 2.0, 2.0]
    assert list(itl.y) == pytest.approx([0, 100 / 3, 200 / 3, 100])


def test_median_and_p99_are_written_at_their_marks():
    shown = texts(plots.latency(two_requests()))
    assert "median 1.25 / p99 1.5" in shown  # TTFT
    assert "median 3.75" in shown  # E2E of 4 and 3.5 s
    assert "With 100 values or fewer, p99 lies between the two largest." in shown


def test_short_latencies_are_told_in_milliseconds():
    steps = tuple(replace(step, t_s=step.t_s / 100) for step in two_requests().step_records)
    requests = tuple(replace(request, arrival_s=0.0) for request in two_requests().request_records)
    figure = plots.latency(Trace(two_requests().header, requests, steps))
    assert figure.layout.xaxis2.title.text == "milliseconds between two tokens"  # gaps of 10 and 20 ms
    assert "median 20" in texts(figure)


def test_a_latency_that_was_not_measured_is_left_out_and_named():
    trace = two_requests()
    running = Trace(trace.header, trace.request_records, (replace(trace.step_records[0], finished={}),))
    shown = texts(plots.latency(running))
    assert "ITL is left out: no request gave two tokens." in shown
    assert "E2E is left out: no request ended by itself." in shown
    assert shown.endswith("TTFT: 1 request")


def test_a_run_without_tokens_says_so_instead_of_a_curve():
    figure = plots.latency(Trace(Header(engine="simulated")))
    assert not figure.data
    assert "No tokens came out" in texts(figure)


# ---- KV and batch


def test_blocks_count_from_the_end_of_their_step_and_the_batch_until_then():
    kv, batch = plots.kv_use(two_requests()).data
    assert (kv.line.shape, list(kv.x), list(kv.y)) == ("hv", [1, 2, 4], [2, 3, 0])
    # step 0 began at 0
    assert (batch.line.shape, list(batch.x), list(batch.y)) == ("vh", [0, 1, 2, 4], [1, 1, 2, 2])


def test_the_whole_memory_is_a_dashed_line_unless_little_of_it_was_used():
    assert "all memory: 8 blocks" in texts(plots.kv_use(two_requests()))
    kvs = [replace(step.kv, num_blocks=35000, num_free=34997) for step in two_requests().step_records]
    steps = tuple(replace(step, kv=kv) for step, kv in zip(two_requests().step_records, kvs, strict=True))
    shown = texts(plots.kv_use(Trace(two_requests().header, (), steps)))
    assert "KV axis cut at 3 of 35\u2009000 blocks." in shown
    assert "all memory" not in shown


def test_cells_are_called_cells():
    steps = (Step(step=0, t_s=1.0, num_running=1, kv=CellDelta(num_used=5, num_cells=8, num_attended=8)),)
    figure = plots.kv_use(Trace(Header(engine="llamacpp"), (), steps))
    assert values(figure) == [(1.0, 5)]
    assert figure.layout.yaxis.title.text == "cells"


def test_kv_that_is_not_told_is_left_out_not_drawn_as_0():
    steps = tuple(replace(step, kv=None) for step in two_requests().step_records)
    figure = plots.kv_use(Trace(two_requests().header, two_requests().request_records, steps))
    assert [list(line.y) for line in figure.data] == [[1, 1, 2, 2]]
    assert "KV use is left out" in texts(figure)
    first, *rest = two_requests().step_records
    figure = plots.kv_use(Trace(two_requests().header, (), (replace(first, kv=None), *rest)))
    assert list(figure.data[0].y) == [None, 3, 0]
    assert "KV use is not told after 1 of 3 steps" in texts(figure)


def test_preemptions_are_marked_where_they_happened():
    figure = plots.kv_use(long_trace(20))
    mark = next(trace for trace in figure.data if trace.mode == "markers")
    assert (list(mark.x), list(mark.y)) == ([8.0], [8])
    assert "1 preempted" in texts(figure)


def test_an_idle_engine_has_nobody_in_the_batch():
    trace = two_requests()
    late = replace(trace.step_records[2], step=3, t_s=20.0, finished={})  # began at 18
    figure = plots.kv_use(Trace(trace.header, trace.request_records, (*trace.step_records, late)))
    assert values(figure, 1)[-3:] == [(4, 2), (18, 0), (20, 2)]


# ---- prefix cache


def test_the_hit_rate_runs_to_that_of_the_whole_run():
    figure = plots.prefix_hits(two_requests())
    rate, found, computed = figure.data
    assert list(rate.y) == [0, 40]  # 0 of 5, then 4 of 10 tokens
    assert (list(found.y), list(computed.y)) == ([0, 4], [5, 1])
    assert list(figure.layout.xaxis2.ticktext) == ["a", "b"]


def test_an_engine_without_a_prefix_cache_is_told_so_not_drawn_at_0():
    header = replace(two_requests().header, capabilities=Capabilities(prefix_caching=False))
    figure = plots.prefix_hits(Trace(header, two_requests().request_records, two_requests().step_records))
    assert not figure.data
    assert "simulated ran without a prefix cache" in texts(figure)


# ---- steps


def test_tokens_of_a_step_are_stacked_by_phase_under_its_budget():
    figure = plots.tokens_per_step(two_requests())
    assert {bars.name: list(bars.y) for bars in figure.data} == {"prefill": [5, 1, 0], "decode": [0, 1, 2]}
    assert figure.layout.barmode == "stack"
    assert [(line.y0, line.line.dash) for line in figure.layout.shapes] == [(8, "dash")]
    assert "budget 8" in texts(figure)


def test_recomputed_tokens_are_hatched_so_that_no_colour_is_needed_to_tell_them():
    trace = Trace.load(RECORDED / "preemption.jsonl.gz")
    bars = {bars.name: bars for bars in plots.tokens_per_step(trace).data}
    assert bars["recompute"].marker.pattern.shape == "/"
    assert sum(bars["recompute"].y) == metrics.recomputed_tokens(trace) == 1313


def test_a_budget_far_above_is_told_in_words():
    figure = plots.tokens_per_step(Trace(Header(engine="x", token_budget=8192), (), two_requests().step_records))
    assert not figure.layout.shapes
    assert "Axis cut at 5; the budget of a step is 8\u2009192 tokens." in texts(figure)


# ---- all of them


@pytest.mark.parametrize("chart", OF_A_TRACE)
def test_a_chart_is_static_names_its_source_and_lets_the_paper_through(chart: Any):
    import plotly.graph_objects as go

    figure = chart(two_requests())
    assert type(figure) is go.Figure
    assert figure.layout.title.subtitle.text == "simulated · simulated"  # engine, source
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert not any(name.startswith("yaxis") and figure.layout[name].overlaying for name in figure.layout)


@pytest.mark.parametrize("chart", OF_A_TRACE)
def test_a_run_may_be_given_for_its_trace(chart: Any):
    class Run:
        trace = two_requests()

    assert chart(Run()) == chart(two_requests())


@pytest.mark.parametrize("chart", OF_A_TRACE)
def test_names_are_data_never_markup(chart: Any):
    trace = two_requests()
    figure = chart(Trace(replace(trace.header, model="<b>big</b>"), trace.request_records, trace.step_records))
    assert "&lt;b&gt;big&lt;/b&gt;" in figure.layout.title.subtitle.text


@pytest.mark.parametrize("chart", OF_A_TRACE)
def test_a_long_run_is_thinned_and_says_so(chart: Any):
    num_steps = 30_000
    trace = long_trace(num_steps)
    if chart is plots.prefix_hits:
        requests = [
            ScheduledRequest(**{**_fields(_decode(f"r{i}", 0)), "num_prompt_tokens": 9}) for i in range(num_steps)
        ]
        steps = tuple(replace(s, scheduled=(r,)) for s, r in zip(trace.step_records, requests, strict=True))
        trace = Trace(replace(trace.header, capabilities=Capabilities(prefix_caching=True)), (), steps)
    figure = chart(trace)
    assert 1000 < sum(len(line.x) for line in figure.data) <= 10_000
    assert "30\u2009000" in texts(figure) or "29\u2009999" in texts(figure) or "12 steps" in texts(figure)
    assert len(figure.to_json()) < 700_000


def _fields(row: ScheduledRequest) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_thinning_keeps_the_lowest_and_the_highest():
    kv = plots.kv_use(long_trace(30_000)).data[0]
    assert (min(kv.y), max(kv.y)) == (1, 10)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl.gz")), ids=lambda p: p.name)
def test_recorded_runs_give_charts_that_agree_with_the_figures(path: Path):
    trace = Trace.load(path)
    hits = plots.prefix_hits(trace).data
    if trace.header.capabilities.prefix_caching:
        assert hits[0].y[-1] == pytest.approx(100 * metrics.prefix_hit_rate(trace))
    else:
        assert not hits
    kv = plots.kv_use(trace).data[0]
    assert list(kv.y) == [pytest.approx(share * trace.header.num_blocks) for share in metrics.kv_use(trace)]
    bars = plots.tokens_per_step(trace).data
    assert sum(sum(one.y) for one in bars) == trace.steps["num_scheduled_tokens"].sum()
    assert "measured" in plots.latency(trace).layout.title.subtitle.text


def test_what_has_no_trace_is_named():
    with pytest.raises(LlmlabError, match=r"A str has no trace\. Give a Run"):
        plots.latency("run")


def test_an_unknown_theme_is_named():
    with pytest.raises(LlmlabError, match="Unknown theme 'blue'"):
        plots.latency(two_requests(), theme="blue")


def test_without_plotly_the_sentence_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(LlmlabError, match=r"pip install 'llmlab-kit\[views\]'"):
        plots.latency(two_requests())


def test_importing_the_charts_loads_no_plotly():
    code = "import sys, llmlab.views.plots; print(sorted({'plotly', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("paper", "text_at_least"), [("#ffffff", 4.5), ("#111111", 4.0)])
def test_text_and_marks_can_be_read_on_light_and_on_dark_paper(paper: str, text_at_least: float):
    from llmlab.views.plots.look import EITHER

    def contrast(colour: str) -> float:
        dark, light = sorted((luminance(colour), luminance(paper)))
        return (light + 0.05) / (dark + 0.05)

    assert contrast(EITHER.ink) >= text_at_least
    assert min(contrast(colour) for colour in (EITHER.ink2, EITHER.warn, EITHER.hit)) >= 3
    assert contrast(EITHER.ghost) >= 2.5  # areas, which are named too


# ---- roofline


def test_the_work_of_a_pass_follows_from_the_shape_of_the_model():
    # SmolLM2-135M: layers 106,168,320 weights, vocabulary x hidden 28,311,552, all 134,515,008 of 2 bytes each;
    # a token looks at one other with 4 x 30 x 9 x 64 = 69,120 operations and keeps 23,040 bytes
    one = decode_work(SMOLLM2, 1, context=1)
    assert (one.flops, one.num_bytes) == (2 * 134_479_872 + 69_120, 269_030_016 + 2 * 23_040)
    assert one.intensity == pytest.approx(1.0, abs=0.001)
    ten = decode_work(SMOLLM2, 10, context=99)
    assert (ten.flops, ten.num_bytes) == (2_758_026_240, 269_030_016 + 1000 * 23_040)
    two_tokens = prefill_work(SMOLLM2, 2)
    assert (two_tokens.flops, two_tokens.num_bytes) == (481_503_744, 269_030_016 + 4 * 23_040)


def test_an_input_embedding_of_its_own_is_looked_up_not_read():
    untied = ModelConfig("llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, tie_embeddings=False)
    assert decode_work(untied, 1, context=1) == decode_work(SMOLLM2, 1, context=1)


def test_smaller_weights_move_fewer_bytes_for_the_same_operations():
    small, large = (decode_work(SMOLLM2, 1, context=1, quant=quant) for quant in ("Q8_0", "F32"))
    assert small.flops == large.flops
    assert small.num_bytes < large.num_bytes / 3.5


def test_points_stand_on_the_roof_and_the_note_says_what_binds():
    figure = plots.roofline(SMOLLM2, peak_flops=1e12, peak_bytes_per_s=1e11, batch_sizes=(1, 4), prompt_tokens=(8, 512))
    points = {line.name: line for line in figure.data if line.name}
    assert points["decode, sequences in the batch"].y[0] == pytest.approx(
        1e11 * points["decode, sequences in the batch"].x[0]
    )
    assert points["prefill, tokens of the prompt"].y[1] == 1e12
    shown = texts(figure)
    assert "10 operations per byte" in shown
    assert "Decode: bound by memory at every size shown, up to 4 sequences." in shown
    assert "Prefill: bound by memory up to 8, by arithmetic from 512 tokens on." in shown
    assert "arithmetic: 1 TFLOP/s, given" in shown
    assert "memory: 100 GB/s, given" in shown


def test_a_peak_that_is_not_given_is_measured_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ceilings, "peak_bytes_per_s", lambda: 2e10)
    shown = texts(plots.roofline(SMOLLM2, peak_flops=1e12))
    assert "memory: 20 GB/s, measured" in shown
    assert "1 TFLOP/s, given" in shown


def test_a_peak_of_0_is_refused():
    with pytest.raises(LlmlabError, match="peak_flops is 0, and must be above 0"):
        plots.roofline(SMOLLM2, peak_flops=0, peak_bytes_per_s=1e9)


@pytest.mark.slow
def test_this_machine_is_measured_once_and_plausibly():
    flops, moved = ceilings.peak_flops(), ceilings.peak_bytes_per_s()
    print(f"{flops / 1e9:.0f} GFLOP/s, {moved / 1e9:.1f} GB/s")
    assert 1e9 < flops < 1e14
    assert 5e8 < moved < 2e12
    assert ceilings.peak_flops() == flops


def test_a_figure_is_small_enough_to_stand_in_a_notebook():
    figure = plots.kv_use(Trace.load(RECORDED / "preemption.jsonl.gz"))
    assert len(json.dumps(figure.to_plotly_json(), default=list)) < 60_000
