"""What the simulator foretells, beside what the engine then did; and how long 10,000 requests take it.

    python -m benchmarks.bench_simulator [--engines llamacpp vllm] [--rounds 3] [--only speed|accuracy]

An engine serves a calibration workload, to whose trace the prices are fitted, then two other workloads that the
simulator has not seen: a burst and Poisson arrivals of longer prompts. Each round is a fit of its own. The recorded
traces of vLLM on an H200 are foretold from one of them as well.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import llmlab
from benchmarks.harness import Bound, Series, write
from llmlab import metrics
from llmlab.engines.cost_model import LinearCost, fit
from llmlab.engines.handle import EngineHandle
from llmlab.engines.simulated_room import Room
from llmlab.engines.simulated_runs import simulate
from llmlab.engines.simulated_worker import Asked
from llmlab.trace import Request, Token, Trace

MAX_ERROR = 0.15
NUM_REQUESTS, NUM_TOKENS, MAX_SPEED_S = 10_000, 200, 20.0
LOAD: dict[str, dict[str, Any]] = {
    "llamacpp": dict(quant="Q4_1", seqs=8, kv_tokens=4096, step_tokens=256, ctx=1024),
    "vllm": dict(dtype="float32", seqs=8, kv_tokens=4096, step_tokens=256, ctx=1024),
}
Workload = tuple[list[dict[str, Any]], list[float] | None]


def prompts(
    chance: random.Random, number: int, shortest: int, longest: int, outputs: tuple[int, int]
) -> list[dict[str, Any]]:
    """Random token ids: nothing is found in a prefix cache."""
    return [
        {
            "prompt": [chance.randrange(1000, 40000) for _ in range(chance.randint(shortest, longest))],
            "max_tokens": chance.randint(*outputs),
        }
        for _ in range(number)
    ]


def arrivals(chance: random.Random, number: int, rate: float, pause_every: int = 10**9) -> list[float]:
    """Poisson, with a pause of two seconds now and then, so that batches of all sizes come up."""
    moment_s, out = 0.0, []
    for i in range(number):
        moment_s += 2.0 if i and i % pause_every == 0 else chance.expovariate(rate)
        out.append(moment_s)
    return out


def calibration() -> Workload:
    """Full batches over a nearly empty KV cache, then batches of all sizes over a full one."""
    chance = random.Random(1)
    asked = [*prompts(chance, 16, 8, 60, (16, 64)), *prompts(chance, 20, 50, 400, (8, 64))]
    return asked, [0.0] * 16 + [12.0 + moment_s for moment_s in arrivals(chance, 20, 3.0, pause_every=10)]


def burst() -> Workload:
    return prompts(random.Random(3), 24, 10, 60, (30, 60)), None


def poisson() -> Workload:
    chance = random.Random(5)
    return prompts(chance, 24, 50, 300, (20, 50)), arrivals(chance, 24, 4.0)


TARGETS: dict[str, Callable[[], Workload]] = {"burst": burst, "Poisson": poisson}


def served(engine: EngineHandle, workload: Workload) -> Trace:
    asked, moments_s = workload
    run = engine.batch(asked, arrivals=moments_s, temperature=0.0, ignore_eos=True)
    run.wait()
    return run.trace.of_requests(run.request_ids)


def median_ttft_s(trace: Trace) -> float:
    known = [t for one in metrics.request_times(trace).values() if (t := metrics.ttft_s(one)) is not None]
    return metrics.percentile(known, 50) or 0.0


def accuracy(name: str, rounds: int) -> tuple[list[Series], list[Bound], list[str]]:
    """Foretold over measured, for each target."""
    figures = {"throughput": metrics.throughput_tps, "median TTFT": median_ttft_s}
    series = {(t, f): Series(f"{name}, {t}: {f}, foretold / measured", "") for t in TARGETS for f in figures}
    notes = []
    with llmlab.load("smollm2-135m", engine=name, **LOAD[name]) as engine:
        engine.batch(prompts(random.Random(9), 8, 20, 30, (8, 8)), ignore_eos=True).wait()  # warm
        for number in range(rounds):
            prices = fit(served(engine, calibration()))
            notes.append(f"{name}, round {number + 1}: {in_words(prices)}")
            for target, workload in TARGETS.items():
                measured = served(engine, workload())
                foretold = measured.replay(cost=prices)
                for figure, of in figures.items():
                    series[target, figure].values.append(of(foretold) / of(measured))
    bounds = [
        Bound(f"{one.name}: off by, median of the rounds", abs(one.median - 1), MAX_ERROR, at_least=False)
        for one in series.values()
    ]
    return list(series.values()), bounds, notes


def in_words(prices: LinearCost) -> str:
    return (
        f"{1e3 * prices.step_s:.3g} ms a step, {1e6 * prices.prefill_token_s:.3g} us a prompt token, "
        f"{1e6 * prices.decode_token_s:.3g} us a decode, "
        f"{1e9 * prices.attended_s:.3g} ns a pair of tokens in attention, "
        f"{1e3 * prices.cold_s:.3g} ms after a pause"
    )


def recorded() -> list[Series]:
    """Traces of vLLM on an H200, recorded one after the other: each foretold by prices fitted to the burst."""
    prices = fit(llmlab.recorded("burst_of_64"))
    out = []
    for name in ("chunked_prefill", "preemption", "shared_prefix"):
        measured = llmlab.recorded(name)
        foretold = measured.replay(cost=prices)
        pairs = ("throughput", metrics.throughput_tps), ("median TTFT", median_ttft_s)
        for figure, of in pairs:
            out.append(
                Series(f"H200, recorded, {name}: {figure}, foretold / measured", "", [of(foretold) / of(measured)])
            )
    return out


def speed(rounds: int) -> tuple[list[Series], list[Bound]]:
    """Seconds for 10,000 requests: all at once and alike; at random moments and of all lengths."""
    room = Room(kv_tokens=102_400, max_num_seqs=256, token_budget=8192, max_model_len=4096)
    prices = LinearCost(0.01, 1e-5, 1e-4, 1e-9)
    alike, mixed = (
        Series("10,000 requests x 200 tokens, a burst", "s"),
        Series("the same, Poisson, 100 to 300 tokens", "s"),
    )
    for _ in range(rounds):
        for series, asked in ((alike, crowd(None)), (mixed, crowd(400.0))):
            started = time.perf_counter()
            simulate(asked, room, prices)
            series.values.append(time.perf_counter() - started)
    return [alike, mixed], [Bound(f"{alike.name}, seconds", alike.median, MAX_SPEED_S, at_least=False)]


def crowd(rate: float | None) -> list[Asked]:
    chance, moment_s, out = random.Random(0), 0.0, []
    for i in range(NUM_REQUESTS):
        moment_s += chance.expovariate(rate) if rate else 0.0
        number = chance.randint(100, 300) if rate else NUM_TOKENS
        prompt = tuple(chance.randrange(50_000) for _ in range(64))
        request = Request(request_id=f"r{i}", arrival_s=moment_s, prompt_token_ids=prompt)
        out.append(Asked(request, (Token(request_id=f"r{i}", token_id=7),) * number))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="*", default=list(LOAD))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("speed", "accuracy"))
    args = parser.parse_args()
    series: list[Series] = []
    bounds: list[Bound] = []
    notes: list[str] = []
    if args.only != "accuracy":
        series, bounds = speed(args.rounds)
    if args.only != "speed":
        for name in args.engines:
            of_engine = accuracy(name, args.rounds)
            series, bounds, notes = series + of_engine[0], bounds + of_engine[1], notes + of_engine[2]
        series += recorded()
    write("simulator", "The simulator: how fast it is, and how right", series, bounds, notes)


if __name__ == "__main__":
    main()
