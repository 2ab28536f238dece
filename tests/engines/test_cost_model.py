"""Cost models: prices are found again in a trace that was made with them, and accidents are not taken for prices."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from simulated_support import asked, crowd

from llmlab.engines.cost_model import MACHINES, AllReduce, LinearCost, RooflineCost, Work, fit
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_runs import simulate
from llmlab.errors import TraceError
from llmlab.models import ModelConfig
from llmlab.trace import Trace

SMOLLM2 = ModelConfig("llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, tie_embeddings=True)
ROOM = Room(kv_tokens=4096, max_num_seqs=16, token_budget=256)
PRICES = LinearCost(step_s=0.008, prefill_token_s=0.0002, decode_token_s=0.0015, attended_s=4e-7, cold_s=0.03)


def noisy(trace: Trace, spread: float, seed: int = 0) -> Trace:
    """The same steps, each a little longer or shorter."""
    chance, steps, lag_s, before_s = random.Random(seed), [], 0.0, 0.0
    for step in trace.step_records:
        lag_s += (step.t_s - before_s) * chance.gauss(0, spread) if before_s else 0.0
        before_s = step.t_s
        steps.append(msgspec.structs.replace(step, t_s=step.t_s + lag_s))
    return replace(trace, step_records=tuple(steps))


def prices(cost: LinearCost) -> list[float]:
    return [cost.step_s, cost.prefill_token_s, cost.decode_token_s, cost.attended_s, cost.cold_s]


def test_the_prices_behind_a_trace_are_found_again():
    # requests of all sizes, with pauses between
    requests = [*crowd(40, rate=10), *(asked(f"late{i}", list(range(200)), 5, 30.0 + 3 * i) for i in range(4))]
    found = fit(simulate(requests, ROOM, PRICES))
    assert prices(found) == pytest.approx(prices(PRICES), rel=1e-3)
    assert found.origin == "as simulated"


@pytest.mark.parametrize("seed", range(3))
def test_with_noise_in_the_steps_another_run_is_foretold_within_5_percent(seed: int):
    found = fit(noisy(simulate(crowd(60, rate=10, seed=seed), ROOM, PRICES), 0.1, seed))
    ends = [simulate(crowd(30, seed=seed + 10, rate=100), ROOM, cost).step_records[-1].t_s for cost in (found, PRICES)]
    assert ends[0] == pytest.approx(ends[1], rel=0.05)


def test_a_machine_that_is_slow_for_a_while_is_not_taken_for_a_price_of_what_the_batch_did_then():
    # steps of 10 ms whatever is in them; in the middle of the run all take twice as long
    trace = simulate([asked(f"r{i}", list(range(i, i + 20)), 100) for i in range(8)], ROOM, LinearCost(0.01, 0.0, 0.0))
    steps, lag_s = [], 0.0
    for step in trace.step_records:
        lag_s += 0.01 if 40 <= step.step < 70 else 0.0
        steps.append(msgspec.structs.replace(step, t_s=step.t_s + lag_s))
    found = fit(replace(trace, step_records=tuple(steps)))
    assert (found.prefill_token_s, found.decode_token_s, found.attended_s) == (0.0, 0.0, 0.0)
    assert found.step_s == pytest.approx(0.013, rel=0.05)


def test_a_trace_of_a_few_steps_has_no_prices():
    trace = simulate([asked("a", [1, 2], 5)], ROOM, PRICES)
    with pytest.raises(TraceError, match=r"needs 20 steps or more, this trace has 5\. .*machine='laptop'"):
        fit(trace)


def test_one_decode_waits_for_memory_and_a_long_prompt_for_arithmetic():
    laptop = MACHINES["laptop"]
    cost = RooflineCost.of(SMOLLM2, laptop)
    # 134,515,008 parameters of 2 bytes and one token of 23,040 bytes, at 60 % of 4e10 B/s, beside 1 ms
    assert cost.seconds(Work(0, 1, 1, 1)) == pytest.approx(0.001 + (2 * 134_515_008 + 23_040) / 4e10 / 0.6)
    # 2 operations a parameter and token, 4 x 30 x 9 x 64 a pair
    pairs = 512 * 513 // 2
    flops = 2 * 134_515_008 * 512 + 69_120 * pairs
    assert cost.seconds(Work(512, 0, pairs, 512)) == pytest.approx(0.001 + flops / 2e11 / 0.6)


def test_a_layer_split_over_gpus_is_added_up_twice():
    link = AllReduce.of(SMOLLM2)
    # 60 additions: 10 us each, and half of 2 x 10 tokens x 1,152 bytes over 300 GB/s
    assert link.seconds(10, 2) == pytest.approx(60 * (10e-6 + 11_520 / 3e11))
    whole = RooflineCost.of(SMOLLM2, MACHINES["h200"])
    work = Work(4096, 0, 0, 4096)
    step_s = MACHINES["h200"].step_s
    split_s = whole.split(2, link).seconds(work) - step_s - link.seconds(4096, 2)
    assert split_s == pytest.approx((whole.seconds(work) - step_s) / 2)
