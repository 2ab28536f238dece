"""Figures of a trace. Every expected number is worked out by hand in the comment beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmlab import metrics
from llmlab.metrics import RequestTimes
from llmlab.trace import (
    BlockDelta,
    Capabilities,
    CellDelta,
    FinishReason,
    Header,
    Request,
    ScheduledRequest,
    Step,
    Token,
    Trace,
)
from llmlab.trace.example import two_requests

NOTHING = Trace(Header(engine="simulated"))


def answers(token_times_s: dict[str, list[float]], reasons: dict[str, FinishReason]) -> Trace:
    """Requests sent at 0 with 4 prompt tokens each, whose tokens come at these times."""
    requests = tuple(Request(request_id=r, arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4)) for r in token_times_s)
    ends = {times[-1]: r for r, times in token_times_s.items() if times and r in reasons}
    steps = [
        Step(
            step=i,
            t_s=t_s,
            tokens=tuple(Token(request_id=r, token_id=1) for r, times in token_times_s.items() if t_s in times),
            finished={ends[t_s]: reasons[ends[t_s]]} if t_s in ends else {},
        )
        for i, t_s in enumerate(sorted({t_s for times in token_times_s.values() for t_s in times}))
    ]
    return Trace(Header(engine="simulated"), requests, tuple(steps))


# ---- one request


def test_the_times_of_a_request_come_from_its_record_and_the_steps():
    times = metrics.request_times(two_requests())
    assert list(times) == ["a", "b"]
    assert times["b"] == RequestTimes("b", 0.5, (2.0, 4.0), "length", 5, 2, first_scheduled_s=1.0)
    assert metrics.ttft_s(times["b"]) == 1.5
    assert metrics.itl_s(times["b"]) == (2.0,)
    assert metrics.tpot_s(times["a"]) == 1.5  # (4 - 1) / 2
    assert metrics.e2e_s(times["a"]) == 4.0
    assert metrics.queue_s(times["a"]) == 0.0  # step 0 ends at 1 and took 1 s
    assert metrics.queue_s(times["b"]) == 0.5  # step 1 ends at 2 and took 1 s


def test_what_was_not_measured_is_none_and_never_zero():
    silent = RequestTimes("a", 0.0)
    assert [metrics.ttft_s(silent), metrics.tpot_s(silent), metrics.e2e_s(silent), metrics.queue_s(silent)] == [
        None
    ] * 4
    assert metrics.itl_s(silent) == ()
    one_token = RequestTimes("a", 0.0, (0.5,), "length", 4, 1)
    assert (metrics.tpot_s(one_token), metrics.itl_s(one_token)) == (None, ())


@pytest.mark.parametrize("reason", [None, "abort", "interrupted", "error"])
def test_a_request_that_did_not_end_by_itself_has_no_end_to_end_time(reason: FinishReason | None):
    assert metrics.e2e_s(RequestTimes("a", 0.0, (0.5, 0.6), reason, 4, 2)) is None


def test_a_request_under_way_when_the_trace_begins_has_no_ttft_no_tpot_and_no_queue_time():
    trace = two_requests()
    rest = Trace(trace.header, trace.request_records, trace.step_records[2:])
    times = metrics.request_times(rest)["a"]
    assert (times.token_times_s, times.num_output_tokens, times.is_cut) == ((4.0,), 3, True)
    assert (metrics.ttft_s(times), metrics.tpot_s(times), metrics.queue_s(times)) == (None, None, None)
    assert metrics.e2e_s(times) == 4.0


def test_a_request_in_the_middle_of_its_prompt_when_the_trace_begins_has_no_queue_time():
    row = ScheduledRequest(
        request_id="a",
        phase="prefill",
        num_tokens=2,
        num_computed_tokens=2,
        num_prompt_tokens=4,
        num_output_tokens=0,
    )
    step = Step(step=7, t_s=1.0, schedule_s=0.1, forward_s=0.1, update_s=0.1, scheduled=(row,))
    asked = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4))
    times = metrics.request_times(Trace(Header(engine="simulated"), (asked,), (step,)))["a"]
    assert times.first_scheduled_s is None


def test_without_step_durations_nobody_knows_the_queue_time():
    trace = two_requests()
    steps = tuple(replace(step, update_s=None) for step in trace.step_records)
    times = metrics.request_times(Trace(trace.header, trace.request_records, steps))
    assert metrics.queue_s(times["a"]) is None


# ---- a whole trace


def test_an_empty_trace_has_no_figures():
    figures = [metrics.throughput_tps, metrics.total_throughput_tps, metrics.request_throughput_rps]
    figures += [metrics.goodput_rps, metrics.prefix_hit_rate, metrics.num_preemptions, metrics.recomputed_tokens]
    assert [figure(NOTHING) for figure in figures] == [None] * 7
    assert (metrics.kv_use(NOTHING), metrics.batch_size(NOTHING)) == ((), ())
    assert metrics.waste(NOTHING) == metrics.Waste(None, None)


def test_throughput_counts_from_the_first_request_sent_to_the_last_token():
    trace = answers({"a": [1.0, 2.0, 4.0], "b": [2.0]}, {"a": "length", "b": "stop"})
    assert metrics.throughput_tps(trace) == 1.0  # 4 tokens in 4 s
    assert metrics.total_throughput_tps(trace) == 3.0  # and 8 prompt tokens
    assert metrics.request_throughput_rps(trace) == 0.5


def test_tokens_of_a_request_that_was_stopped_count_but_the_request_does_not():
    trace = answers({"a": [1.0, 2.0, 4.0], "b": [2.0]}, {"a": "length", "b": "abort"})
    assert metrics.throughput_tps(trace) == 1.0
    assert metrics.request_throughput_rps(trace) == 0.25


def test_a_prompt_that_gave_no_token_yet_is_no_throughput():
    trace = answers({"a": [1.0, 2.0], "b": []}, {"a": "length"})
    assert metrics.total_throughput_tps(trace) == 3.0  # (2 + 4) / 2 s


def test_in_a_trace_that_begins_inside_a_run_the_clock_starts_at_its_first_token():
    trace = two_requests()
    rest = Trace(trace.header, trace.request_records, trace.step_records[1:])
    assert metrics.throughput_tps(rest) == 1.0  # 2 tokens in the 2 s between steps 1 and 2
    assert metrics.total_throughput_tps(rest) == 1.0  # the prompt of b was done with its first token
    assert metrics.request_throughput_rps(rest) == 1.0
    last = Trace(trace.header, trace.request_records, trace.step_records[2:])
    assert metrics.throughput_tps(last) is None


def test_a_request_that_ends_with_the_first_token_of_such_a_trace_is_not_counted():
    trace = two_requests()
    steps = (replace(trace.step_records[1], finished={"a": "stop"}), trace.step_records[2])
    rest = Trace(trace.header, trace.request_records[:1], (steps[0],))
    both = Trace(trace.header, trace.request_records, (steps[0], replace(steps[1], tokens=steps[1].tokens[1:])))
    assert metrics.request_throughput_rps(rest) is None
    assert metrics.request_throughput_rps(both) == 0.5  # b alone, in 2 s


def test_goodput_counts_who_met_every_limit():
    # a: TTFT 1, TPOT 1.5, end 4; b: TTFT 2, one token; c is stopped
    trace = answers({"a": [1.0, 2.0, 4.0], "b": [2.0], "c": [0.5]}, {"a": "length", "b": "stop", "c": "abort"})
    assert metrics.goodput_rps(trace) == 0.5
    assert metrics.goodput_rps(trace, ttft_s=1.0) == 0.25
    assert metrics.goodput_rps(trace, ttft_s=2.0, tpot_s=1.5) == 0.5
    assert metrics.goodput_rps(trace, tpot_s=1.0) == 0.25  # b has no gap between tokens
    assert metrics.goodput_rps(trace, e2e_s=2.5) == 0.25
    assert metrics.goodput_rps(trace, ttft_s=0.1) == 0.0


def test_kv_use_is_the_share_of_blocks_or_cells_in_use():
    cells = CellDelta(num_used=64, num_cells=256, num_attended=256)
    blocks = BlockDelta(num_free=1, num_blocks=4)
    empty = BlockDelta(num_free=0, num_blocks=0)
    steps = tuple(Step(step=i, t_s=float(i), kv=kv) for i, kv in enumerate((cells, blocks, None, empty)))
    assert metrics.kv_use(Trace(Header(engine="x"), (), steps)) == (0.25, 0.75, None, None)


def test_the_prefix_hit_rate_counts_first_admissions_only():
    trace = two_requests()
    assert metrics.prefix_hit_rate(trace) == 0.4  # b found 4 of all 10
    again = replace(trace.step_records[2], prefix_hits={"a": 4})
    more = Trace(trace.header, trace.request_records, (*trace.step_records[:2], again))
    assert metrics.prefix_hit_rate(more) == 0.4
    header = replace(trace.header, capabilities=Capabilities(kv="blocks"))
    assert metrics.prefix_hit_rate(Trace(header, trace.request_records, trace.step_records)) is None
    rest = Trace(trace.header, trace.request_records, trace.step_records[2:])
    assert metrics.prefix_hit_rate(rest) is None


def test_preemptions_and_what_they_cost():
    row = ScheduledRequest(
        request_id="a",
        phase="recompute",
        num_tokens=7,
        num_computed_tokens=0,
        num_prompt_tokens=5,
        num_output_tokens=2,
    )
    steps = (Step(step=0, t_s=0.0, preempted=("a", "b")), Step(step=1, t_s=1.0, scheduled=(row,), preempted=("b",)))
    trace = Trace(Header(engine="x"), (), steps)
    assert (metrics.num_preemptions(trace), metrics.recomputed_tokens(trace)) == (3, 7)


def test_waste_leaves_out_who_was_preempted_and_who_ended():
    trace = two_requests()
    # after step 0: a 5 tokens in 2 blocks of 4; after step 1: a 6, b 5 in 3 blocks, one of them shared; then nobody
    assert metrics.waste(trace).last_block == pytest.approx((3 + 2 + 3) / (8 + 12))
    assert metrics.waste(trace).contiguous == pytest.approx(1 - (5 + 6 + 5) / (3 * 16))
    steps = (trace.step_records[0], replace(trace.step_records[1], preempted=("a",), scheduled=()))
    assert metrics.waste(Trace(trace.header, (), steps)).contiguous == pytest.approx(1 - 5 / 16)


def test_cells_waste_nothing_in_last_blocks_and_an_unknown_limit_leaves_contiguous_open():
    trace = two_requests()
    steps = tuple(replace(s, kv=CellDelta(num_used=1, num_cells=4, num_attended=4)) for s in trace.step_records)
    assert metrics.waste(Trace(Header(engine="x"), (), steps)) == metrics.Waste(0.0, None)
    assert metrics.waste(Trace(Header(engine="x"), (), trace.step_records)) == metrics.Waste(None, None)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), q=st.floats(0, 100))
def test_percentiles_are_numpy_s(values: list[float], q: float):
    assert metrics.percentile(values, q) == pytest.approx(float(np.percentile(values, q)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("q", [-1, 101])
def test_a_percentile_outside_0_to_100_is_refused(q: float):
    with pytest.raises(ValueError, match="a percentile lies between 0 and 100, not at"):
        metrics.percentile([1.0], q)


def test_requests_that_only_left_kv_behind_do_not_count_as_part_of_a_later_run():
    before = CellDelta(written={"old": ((0, 0, 4),)}, num_used=4, num_cells=256, num_attended=256)
    asked = [Request(request_id=name, arrival_s=t, prompt_token_ids=(5,)) for name, t in (("old", 0.0), ("new", 100.0))]
    share = ScheduledRequest(
        request_id="new", phase="prefill", num_tokens=1, num_computed_tokens=0, num_prompt_tokens=1, num_output_tokens=0
    )
    step = Step(
        step=7,
        t_s=102.0,
        scheduled=(share,),
        num_scheduled_tokens=1,
        tokens=(Token(request_id="new", token_id=9),),
        finished={"new": "length"},
    )
    trace = Trace(Header(engine="simulated", kv_at_start=before), tuple(asked), (step,))
    assert list(metrics.request_times(trace)) == ["new"]
    assert metrics.throughput_tps(trace) == 0.5
    assert list(trace.requests["request_id"]) == ["new"]
