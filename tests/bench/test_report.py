"""The report: its choice rests on figures of the run, and what speaks for the other engine is said with its figure."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmlab
from llmlab.bench import Bench, Measurement, Slo, workload
from llmlab.bench.result import EngineFacts
from llmlab.errors import LlmlabError, RequestError
from llmlab.quality import Perplexity
from llmlab.report import Report
from llmlab.report.load_times import LoadTimes, load_times


def measurement(engine: str, load: float, repeat: int, tps: float, **more: Any) -> Measurement:
    values: dict[str, Any] = dict(
        engine=engine, load=load, repeat=repeat, is_complete=True, num_requests=10, num_ended=10, num_prompt_tokens=100,
        num_output_tokens=200, duration_s=2.0, ttft_s=(0.1,), tpot_s=(0.02,), itl_s=(0.02,), e2e_s=(1.0,),
        throughput_tps=tps, total_throughput_tps=2 * tps, request_throughput_rps=tps / 20, goodput_rps=None,
        max_batch_size=4, kv_peak=0.5, num_preemptions=0, prefix_hit_rate=0.0, rss_peak_bytes=300_000_000,
        gpu_peak_bytes=None, cpu_s=1.0, energy_j=None, notebook_cpu_s=0.01, schedule_error_s=0.001,
    )  # fmt: skip
    return Measurement(**values | more)


def facts(name: str, engine: str = "llamacpp", **more: Any) -> EngineFacts:
    return EngineFacts(name=name, engine=engine, version="1", model="m", **{"device": "CPU", **more})


def bench_of(*measurements: Measurement, engines: tuple[EngineFacts, ...], slo: Slo | None = None) -> Bench:
    return Bench(workload=workload("poisson"), seed=0, engines=engines, measurements=measurements, slo=slo or Slo())


AB = (facts("a"), facts("b", "vllm"))


def two(tps_a: tuple[float, float], tps_b: tuple[float, float], slo: Slo | None = None, **of_b: Any) -> Bench:
    return bench_of(
        *(measurement("a", 1, i, tps) for i, tps in enumerate(tps_a)),
        *(measurement("b", 1, i, tps, **of_b) for i, tps in enumerate(tps_b)),
        engines=AB,
        slo=slo,
    )


def test_the_faster_engine_is_chosen_with_both_figures_and_the_other_for_what_it_does_better():
    choice = Report(two((100, 102), (50, 51), rss_peak_bytes=100_000_000)).choice
    assert choice.engine == "a"
    assert choice.reasons[0] == "most tokens/s: 101 tok/s at load 1, b 50 tok/s at load 1"
    assert choice.conditions == (
        "b, if memory is short: memory of its process, peak 100 MB at load 1, a 300 MB at load 1",
    )


def test_every_figure_of_a_reason_stands_in_the_comparison_of_the_run():
    report = Report(
        two((100, 102), (50, 51), ttft_s=(0.01,)), load_times={"a": LoadTimes(warm_s=1.0), "b": LoadTimes(warm_s=9.0)}
    )
    shown = {text for criterion in report.criteria for text in criterion.shown.values()}
    for reason in report.choice.reasons:
        first, second = re.fullmatch(r".*?: (.*), b (.*)", reason).groups()
        assert {first, second} <= shown


def test_repeats_that_overlap_are_no_reason():
    choice = Report(two((100, 60), (70, 50))).choice
    assert choice.engine is None and "cannot tell these engines apart" in choice.sentence


def test_with_limits_goodput_decides_and_not_throughput():
    slo = Slo(ttft_s=0.5)
    result = bench_of(
        *(measurement("a", 1, i, 100, goodput_rps=1.0) for i in range(2)),
        *(measurement("b", 1, i, 50, goodput_rps=2.0) for i in range(2)),
        engines=AB,
        slo=slo,
    )
    choice = Report(result).choice
    assert choice.engine == "b" and choice.reasons[0].startswith("most requests/s within TTFT ≤ 0.5 s: 2/s at load 1")
    assert any(c.startswith("a, if throughput is what counts: most tokens/s 100 tok/s") for c in choice.conditions)


def test_limits_that_no_engine_meets_recommend_nobody_and_show_how_far_off_they_are():
    result = bench_of(*(measurement(n, 1, 0, 50, goodput_rps=0.0) for n in "ab"), engines=AB, slo=Slo(ttft_s=0.001))
    choice = Report(result).choice
    assert choice.engine is None and "No engine met TTFT ≤ 0.001 s" in choice.sentence
    assert any("TTFT at the lowest load, median: a 100 ms at load 1" in c for c in choice.conditions)


def test_a_measurement_that_was_cut_short_decides_nothing():
    result = two((100, 100), (900, 900), is_complete=False)
    assert Report(result).choice.engine is None


def test_the_price_of_an_hour_becomes_the_cost_of_a_million_tokens():
    report = llmlab.report(two((100, 100), (50, 50)), price={"a": 3.6}, currency="EUR")
    assert report.cost == {"a": pytest.approx(10.0)}  # 360,000 tokens an hour
    for price, message in [({"c": 1}, "Unknown engine of this measurement 'c'"), (-1, "The price of a is -1")]:
        with pytest.raises(RequestError, match=message):
            llmlab.report(two((1, 1), (1, 1)), price=price)


def test_claims_are_settled_by_the_figures_of_the_run_and_others_are_not_listed():
    report = Report(two((100, 102), (50, 51)), load_times={"b": LoadTimes(warm_s=9.0)})
    found = {(s.claim.row, s.about): (s.verdict, s.figure) for s in report.claims}
    assert found[7, "llamacpp"] == ("does not hold here", "a ran up to 4 requests in one step")
    assert found[13, "vllm"] == ("holds here", "b was ready after 9.00 s")
    assert found[24, "vllm"] == ("does not hold here", "b ran on a CPU: 50 tok/s")
    assert (
        found[26, "llamacpp"][0] == "does not hold here" and (27, "vllm") not in found and (13, "llamacpp") not in found
    )


def test_two_quants_settle_the_row_on_quantization_with_size_speed_and_perplexity():
    engines = (
        facts("q8", quant="Q8_0", weights_bytes=145_000_000),
        facts("q4", quant="Q4_0", weights_bytes=92_000_000),
    )
    result = bench_of(measurement("q8", 1, 0, 80), measurement("q4", 1, 0, 120), engines=engines)
    surprise = {"q8": Perplexity("q8", 20.0, 0.05, 100, 99, 96), "q4": Perplexity("q4", 25.0, 0.05, 100, 99, 96)}
    (row,) = [s for s in Report(result, perplexities=surprise).claims if s.claim.row == 17]
    assert row.figure == "Q8_0 145 MB, 80 tok/s, perplexity 20.0; Q4_0 92.0 MB, 120 tok/s, perplexity 25.0"


def test_perplexities_over_other_tokens_are_shown_and_not_compared():
    result = two((100, 100), (100, 100))

    def speaks_for_b(num_tokens_of_b: int) -> bool:
        surprise = {
            "a": Perplexity("a", 25.0, 0.1, 100, 99, 96),
            "b": Perplexity("b", 20.0, 0.1, num_tokens_of_b, 99, 96),
        }
        (criterion,) = [c for c in Report(result, perplexities=surprise).criteria if c.name == "perplexity"]
        return criterion.shown == {"a": "25.00", "b": "20.00"} and criterion.better("b", "a")

    assert speaks_for_b(100) and not speaks_for_b(120)


def test_the_html_needs_nothing_else_and_names_are_data(tmp_path: Path):
    evil = "<script>alert(1)</script>|x"
    result = bench_of(measurement(evil, 1, 0, 10), measurement(evil, 2, 0, 20), engines=(facts(evil),))
    html = Report(result).save(tmp_path / "r.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert not re.search(r"(src|href)=|@import|url\(", html)
    assert "<svg" in html
    lines = Report(result).save(tmp_path / "r.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert "|x" not in "".join(rows).replace("\\|x", "") and not any("<script" in line for line in lines)


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="no Chromium to print with")
@pytest.mark.browser
def test_a_pdf_is_printed_through_the_browser(tmp_path: Path):
    assert Report(two((2, 2), (1, 1))).save(tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_another_suffix_is_refused(tmp_path: Path):
    with pytest.raises(LlmlabError, match=r"\.html, \.md or \.pdf, not as '\.docx'"):
        Report(two((2, 2), (1, 1))).save(tmp_path / "r.docx")


def test_a_report_measures_what_is_missing_and_says_what_could_not_be(load_named):
    a = load_named("a")
    result = llmlab.bench(a, workload="burst", sweep=[2], repeats=1, warm_up=0)
    report = llmlab.report(result, with_load_times=False)
    assert report.exact["a"].num_right == 0 and len(report.exact["a"].answered) == 24
    assert any("perplexity of a: not measured. The fake engine has no logits" in note for note in report.notes)
    a.unload()
    assert any("a is not loaded any more" in note for note in llmlab.report(result).notes)


@pytest.mark.slow
def test_cold_and_warm_load_times_are_those_of_two_more_engines_that_are_gone_afterwards():
    with llmlab.load("smollm2-135m", "llamacpp", quant="Q4_1", ctx=256, name="q4") as handle:
        times = load_times(handle)
        assert list(llmlab.handles()) == ["q4"]
        folder = Path(handle.config.model_path).parent
    assert 0 < times.warm_s < times.warm_first_token_s and times.note == ""
    assert 0 < times.cold_s < times.cold_first_token_s
    assert not list(folder.glob("llmlab-cold-*"))


def test_the_knee_is_where_throughput_over_latency_is_highest_and_the_ends_of_a_sweep_are_not_sold_as_one():
    def sweep(*points: tuple[float, float, float]) -> Bench:
        return bench_of(*(measurement("a", load, 0, tps, e2e_s=(s,)) for load, tps, s in points), engines=(facts("a"),))

    inside = sweep((1, 50, 1.0), (2, 95, 1.1), (4, 120, 2.0), (8, 121, 4.0)).knee("a")
    assert (inside.load, inside.place) == (2, "inside")
    last = sweep((1, 50, 1.0), (2, 100, 1.0), (4, 200, 1.0)).knee("a")
    assert last.place == "last" and "Sweep higher" in last.sentence
    first = sweep((1, 50, 1.0), (2, 50, 2.0), (4, 50, 4.0)).knee("a")
    assert first.place == "first" and "Sweep lower" in first.sentence
    assert sweep((1, 50, 1.0), (2, 95, 1.1)).knee("a") is None
