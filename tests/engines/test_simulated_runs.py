"""Simulated workers: sound traces of every pool and policy, times that add up, and the same answer the quick way."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from simulated_support import PRICES, asked, crowd

from llmlab import metrics
from llmlab.engines import simulated_worker
from llmlab.engines.cost_model import LinearCost
from llmlab.engines.simulated_decodes import Decodes
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_runs import Split, simulate
from llmlab.errors import EngineError, PartFailed, PlanRefused
from llmlab.scheduling.policies import ChunkedPrefill
from llmlab.trace import Trace

TIGHT = Room(kv_tokens=512, max_num_seqs=8, token_budget=64, max_model_len=160)


def preemptions(trace: Trace) -> int:
    return metrics.num_preemptions(trace) or 0


@pytest.mark.parametrize("kv", ["blocks", "cells", "contiguous"])
@pytest.mark.parametrize("policy", ["chunked", "fcfs", "static"])
def test_every_pool_under_every_policy_gives_a_sound_trace_that_serves_all(kv: str, policy: str):
    room = dataclasses.replace(TIGHT, kv=kv, policy=policy)
    trace = simulate(crowd(40), room, PRICES)
    assert trace.validate() == []
    assert set(trace.requests.finish_reason) == {"length"}
    assert trace.header.source == "simulated" and trace.header.engine == "simulated"


def test_times_are_the_prices_of_the_work():
    trace = simulate([asked("a", list(range(100)), 3, arrival_s=5.0)], Room(kv_tokens=1024), PRICES)
    # prefill of 100 tokens: 10 + 100 x 0.1 ms; then two decodes of 10 + 1 ms
    assert [round(step.t_s, 6) for step in trace.step_records] == [5.02, 5.031, 5.042]
    assert trace.step_records[0].num_scheduled_tokens == 100


def test_the_first_step_after_a_pause_pays_for_it():
    cost = dataclasses.replace(PRICES, cold_s=0.5)
    trace = simulate([asked("a", [1], 1), asked("b", [2], 1, arrival_s=9.0)], Room(kv_tokens=1024), cost)
    assert [round(step.t_s, 6) for step in trace.step_records] == [0.5101, 9.5101]


@pytest.mark.parametrize("kv", ["blocks", "contiguous"])
@pytest.mark.parametrize("block_size", [1, 7, 16])
def test_decodes_that_nobody_was_asked_about_are_those_that_would_have_been_planned(
    kv: str, block_size: int, monkeypatch: pytest.MonkeyPatch
):
    room = dataclasses.replace(TIGHT, kv=kv, block_size=block_size)
    num_quick = 0
    begin = Decodes.begin

    def counted(self: Decodes) -> object:
        nonlocal num_quick
        num_quick += 1
        return begin(self)

    monkeypatch.setattr(Decodes, "begin", counted)
    quick = simulate(crowd(60, seed=3), room, PRICES)
    assert num_quick > 50
    monkeypatch.setattr(simulated_worker.Decodes, "after", lambda *_: None)
    slow = simulate(crowd(60, seed=3), room, PRICES)
    assert quick.step_records == slow.step_records


def test_a_policy_of_ones_own_is_asked_in_every_step():
    class Counting(ChunkedPrefill):
        num_asked = 0

        def schedule(self, state):
            type(self).num_asked += 1
            return super().schedule(state)

    trace = simulate(crowd(10), dataclasses.replace(TIGHT, policy=Counting()), PRICES)
    assert Counting.num_asked == len(trace.step_records)
    assert trace.step_records == simulate(crowd(10), TIGHT, PRICES).step_records


def test_each_worker_has_a_policy_of_its_own_and_one_that_breaks_earns_a_sentence():
    asked_by = set()

    class Counting(ChunkedPrefill):
        def schedule(self, state):
            asked_by.add(id(self))
            return super().schedule(state)

    class Breaks(ChunkedPrefill):
        def schedule(self, state):
            return {"r0": 1 // len(state.running)}

    simulate(crowd(20), dataclasses.replace(TIGHT, policy=(own := Counting())), PRICES, num_workers=2)
    assert len(asked_by) == 2 and id(own) not in asked_by
    with pytest.raises(PartFailed, match=r"step 0: policy\.schedule\(\): ZeroDivisionError: .* of schedule\(\)"):
        simulate(crowd(2), dataclasses.replace(TIGHT, policy=Breaks), PRICES)


def test_the_same_seed_gives_the_same_run_and_jitter_another_one():
    runs = [simulate(crowd(20), TIGHT, PRICES, seed=seed, jitter=0.2) for seed in (1, 1, 2)]
    assert runs[0].step_records == runs[1].step_records != runs[2].step_records


def test_contiguous_memory_holds_few_sequences_though_most_of_it_is_empty():
    room = Room(kv_tokens=2048, max_num_seqs=16, token_budget=256, max_model_len=512)
    requests = [asked(f"r{i}", list(range(i, i + 20)), 20) for i in range(16)]
    paged = simulate(requests, room, PRICES)
    reserved = simulate(requests, dataclasses.replace(room, kv="contiguous"), PRICES)
    # 2048 tokens of room, 512 for each: four at a time, though each needs 40
    assert max(step.num_running for step in reserved.step_records) == 4
    assert max(len(step.scheduled) for step in paged.step_records) > 8
    assert metrics.throughput_tps(reserved) < metrics.throughput_tps(paged)
    assert reserved.validate() == []


# ---- several workers


def test_two_workers_share_the_requests_and_one_trace():
    one, two = (simulate(crowd(60, rate=400), TIGHT, PRICES, num_workers=n) for n in (1, 2))
    assert two.validate() == []
    assert {step.extra["worker"] for step in two.step_records} == {0, 1}
    assert two.header.num_blocks == 2 * one.header.num_blocks
    assert 1.5 < metrics.throughput_tps(two) / metrics.throughput_tps(one) < 2.5
    # a request stays where it began
    workers = {}
    for step in two.step_records:
        for row in step.scheduled:
            assert workers.setdefault(row.request_id, step.extra["worker"]) == step.extra["worker"]


def test_a_sequence_that_was_prefilled_elsewhere_is_only_decoded_and_waits_for_its_kv():
    split = Split(1, 1, transfer_token_s=0.001)
    trace = simulate([asked("a", list(range(100)), 3)], Room(kv_tokens=1024), PRICES, split=split)
    assert trace.validate() == []
    shares = [
        (step.extra["worker"], row.phase, round(step.t_s, 6)) for step in trace.step_records for row in step.scheduled
    ]
    # prefill ends at 20 ms; 100 tokens of KV take 100 ms; each decode 11 ms
    assert shares == [(0, "prefill", 0.02), (1, "decode", 0.131), (1, "decode", 0.142)]
    blocks_of_each = trace.header.num_blocks // 2
    moved = trace.step_records[1].kv
    assert all(block < blocks_of_each for block in moved.freed["a"])
    assert all(block >= blocks_of_each for block in moved.allocated["a"])


@pytest.mark.parametrize("seed", range(3))
def test_disaggregated_runs_under_pressure_are_sound_and_serve_all(seed: int):
    trace = simulate(crowd(60, seed=seed, rate=200), TIGHT, PRICES, split=Split(1, 2, 1e-4, 1e-3))
    assert trace.validate() == []
    assert set(trace.requests.finish_reason) == {"length"}


def test_long_prompts_do_not_hold_up_decodes_that_run_elsewhere():
    long = [asked(f"long{i}", list(range(i, 2000 + i)), 2, arrival_s=0.1 * i) for i in range(10)]
    short = [asked(f"s{i}", [i, i + 1], 60) for i in range(4)]
    room = Room(kv_tokens=65536, token_budget=1024, max_num_seqs=32, max_model_len=4096, prefix_caching=False)

    def longest_gap_s(trace: Trace) -> float:
        times = metrics.request_times(trace)
        return max(gap for one in short for gap in metrics.itl_s(times[one.request.request_id])[1:])

    together = simulate([*long, *short], room, PRICES, num_workers=2)
    apart = simulate([*long, *short], room, PRICES, split=Split(1, 1, 1e-6))
    assert longest_gap_s(apart) < 0.2 * longest_gap_s(together)


# ---- what cannot be


def test_a_request_that_can_never_fit_is_refused_with_what_to_change():
    with pytest.raises(
        PlanRefused, match=r"a grows to 119 tokens, the whole KV cache holds 64: give it more kv_tokens"
    ):
        simulate([asked("a", list(range(100)), 20)], Room(kv_tokens=64), PRICES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv": "pages"}, "Unknown kind of KV cache 'pages'"),
        ({"policy": "statik"}, "Unknown policy 'statik'. Known: chunked, fcfs, static. Did you mean 'static'?"),
        ({"block_size": 0}, "block_size is 0; it must be a whole number, 1 or more"),
        ({"kv_tokens": 8}, "kv_tokens is 8, less than one block of 16 tokens"),
    ],
)
def test_a_room_that_cannot_be_says_so(change: dict, message: str):
    with pytest.raises(EngineError, match=message):
        Room(**{"kv_tokens": 1024, **change})


def test_cells_are_of_one_process():
    with pytest.raises(EngineError, match="cells are of one process"):
        simulate(crowd(2), dataclasses.replace(TIGHT, kv="cells"), PRICES, num_workers=2)


def test_gpus_that_split_each_layer_divide_the_tokens_and_pay_for_adding_up():
    from llmlab.engines.cost_model import AllReduce

    link = AllReduce(num_layers=10, bytes_per_token=0, latency_s=0.0001)
    split = LinearCost(0.01, 0.0001, 0.001).split(2, link)
    trace = simulate([asked("a", list(range(100)), 1)], Room(kv_tokens=1024), split)
    # 10 ms, half of 10 ms, 20 additions of 0.1 ms
    assert round(trace.step_records[0].t_s, 6) == 0.017


def test_a_step_may_be_saved_and_read_again(tmp_path):
    trace = simulate(crowd(5), TIGHT, PRICES, num_workers=2)
    again = Trace.load(trace.save(tmp_path / "run.jsonl.gz"))
    assert [step.extra for step in again.step_records] == [step.extra for step in trace.step_records]
    assert msgspec.structs.asdict(again.header)["source"] == "simulated"
