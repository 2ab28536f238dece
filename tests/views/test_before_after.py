"""before_after(): the same rows and seconds above and below, and figures of both sides with who measured them."""

from __future__ import annotations

import pytest

import llmlab
from llmlab.errors import LlmlabError
from llmlab.trace import Header, Trace
from llmlab.trace.example import two_requests
from llmlab.views.plots.lanes import lanes


@pytest.fixture(scope="module")
def crowded() -> Trace:
    return llmlab.recorded("preemption")


@pytest.fixture(scope="module")
def roomy(crowded: Trace) -> Trace:
    return crowded.replay(kv_tokens=4096)


def test_both_panels_have_the_rows_and_seconds_of_both_runs(crowded: Trace, roomy: Trace):
    figure = llmlab.before_after(crowded, roomy).figure
    layout = figure.layout
    assert layout.xaxis.range == layout.xaxis2.range
    assert layout.yaxis.range == layout.yaxis2.range
    told = " / ".join(a.text for a in layout.annotations)
    assert "Before: vllm 0.26.0" in told and "measured" in told
    assert "After: simulated as vllm 0.26.0" in told and "H200 · simulated" in told
    assert "done after" in told
    crosses = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in crosses] == [15]  # all above: nobody is preempted below


def test_the_table_has_both_figures_and_the_change(crowded: Trace, roomy: Trace):
    rows = {row[0]: row[1:] for row in llmlab.before_after(crowded, roomy).table.rows}
    assert rows["preemptions"] == ("15", "0", "-100 %")
    assert rows["steps"][0] == "358"


def test_no_more_is_drawn_than_one_can_see_and_a_page_can_hold(crowded: Trace):
    many = llmlab.recorded("burst_of_64")
    figure = llmlab.before_after(many, many.replay()).figure
    assert sum(len(trace.x) for trace in figure.data) <= 10_000


def test_a_lane_waits_until_it_is_served_and_after_it_was_preempted(crowded: Trace):
    preempted = next(lane for lane in lanes(crowded).values() if lane.preempted_s)
    kinds = [piece.kind for piece in preempted.pieces]
    assert kinds[kinds.index("recompute") - 1] == "waiting"
    for lane in lanes(crowded).values():
        for before, after in zip(lane.pieces, lane.pieces[1:], strict=False):
            assert before.end_s <= after.start_s + 1e-9


def test_what_has_no_trace_or_no_requests_is_said():
    with pytest.raises(LlmlabError, match="A int has no trace"):
        llmlab.before_after(two_requests(), 7)  # type: ignore[arg-type]
    empty = Trace(Header(engine="vllm"))
    texts = [a.text for a in llmlab.before_after(empty, empty).figure.layout.annotations]
    assert "nothing to compare" in texts[0]
