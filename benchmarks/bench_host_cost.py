"""What the host, its messages and the trace cost per step, and how long a token travels to the notebook.

    python -m benchmarks.bench_host_cost

The bare loop and the host take turns in fresh processes. Per step: wall time outside llama_decode (all that is ours),
and llama_decode itself, which a busy notebook process could slow down on a small machine. Means over a run, since what
a message costs falls on every second or third step; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from benchmarks.bench_llamacpp_throughput import NUM_THREADS, NUM_TOKENS, PROMPTS, gguf
from benchmarks.harness import Bound, Series, in_fresh_process, write


def bare_loop(quant: str, num_requests: int) -> dict[str, float]:
    """Seconds per step of schedule, decode, sample and nothing else; and of llama_decode within."""
    from llmlab.engines.base import EngineConfig
    from llmlab.engines.llamacpp import LlamaCppEngine
    from llmlab.trace import Request

    options = {"threads": NUM_THREADS}
    engine = LlamaCppEngine(EngineConfig("llamacpp", "smollm2-135m", gguf(quant), quant=quant, options=options))
    steps, forwards = [], []
    for warm_up in (True, False):
        for i, prompt in enumerate(PROMPTS[:num_requests]):
            sampling = {"temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
            name, ids = f"r{i}{'-warm-up' * warm_up}", tuple(engine.tokenize(prompt))
            engine.add_request(Request(request_id=name, arrival_s=0.0, prompt_token_ids=ids, sampling=sampling))
        last = time.perf_counter()
        while engine._generations:
            plan = engine.scheduler.schedule()
            rows = engine._fill_batch(plan)
            started = time.perf_counter()
            engine._forward(plan)
            forward_s = time.perf_counter() - started
            engine._sample(plan, rows)
            now = time.perf_counter()
            if not warm_up:
                steps.append(now - last)
                forwards.append(forward_s)
            last = now
        engine._ended.clear()
    return {"step_s": statistics.fmean(steps), "forward_s": statistics.fmean(forwards)}


def host(quant: str, num_requests: int) -> dict[str, float]:
    """The same figures of a run behind a handle, and the median way of a token from the engine to the notebook."""
    import llmlab

    engine = llmlab.load("smollm2-135m", engine="llamacpp", quant=quant, options={"threads": NUM_THREADS})
    for _ in range(2):
        run = engine.batch(PROMPTS[:num_requests], raw=True, temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
        travels = [time.time() for _ in run]
        run.wait()
    trace = run.trace
    made = [trace.header.started_at + step.t_s for step in trace.step_records for _ in step.tokens]
    travels_s = sorted(seen - then for seen, then in zip(travels, made, strict=True))
    ends = [step.t_s for step in trace.step_records]
    first = [seen - then for seen, then in zip(travels[:num_requests], made[:num_requests], strict=True)]
    engine.unload()
    return {
        "step_s": (ends[-1] - ends[0]) / (len(ends) - 1),
        "forward_s": statistics.fmean(step.forward_s for step in trace.step_records[1:]),
        "travel_s": statistics.median(travels_s),
        "first_travel_s": statistics.median(first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=["bare", "host"])
    parser.add_argument("--quant", default="Q4_1")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.peer:
        measure = {"bare": bare_loop, "host": host}[arguments.peer]
        print(json.dumps(measure(arguments.quant, arguments.requests)))
        return
    series: list[Series] = []
    bounds: list[Bound] = []
    for num_requests in (16, 1):
        got = {peer: [] for peer in ("bare", "host")}
        for _ in range(arguments.rounds):
            for peer, results in got.items():
                results.append(in_fresh_process(__file__, "--peer", peer, "--requests", str(num_requests)))
        named = f"{num_requests} request{'s' if num_requests > 1 else ''}"
        steps = {p: Series(f"{named}: step, {p}", "ms", [1e3 * r["step_s"] for r in rs]) for p, rs in got.items()}
        ours = {
            p: Series(
                f"{named}: step outside llama_decode, {p}", "ms", [1e3 * (r["step_s"] - r["forward_s"]) for r in rs]
            )
            for p, rs in got.items()
        }
        travel = Series(f"{named}: token to the notebook", "ms", [1e3 * r["travel_s"] for r in got["host"]])
        first = Series(f"{named}: first token to the notebook", "ms", [1e3 * r["first_travel_s"] for r in got["host"]])
        series += [*steps.values(), *ours.values(), travel, first]
        added = (ours["host"].median - ours["bare"].median) / steps["bare"].median
        whole = steps["host"].median / steps["bare"].median - 1
        bounds += [
            Bound(f"{named}: a whole step, host against bare", whole, 0.015, at_least=False),
            Bound(f"{named}: time added to a step by host, messages and trace", added, 0.015, at_least=False),
            Bound(f"{named}: first token to the notebook, ms", first.median, 5.0, at_least=False),
        ]
    write("host_cost", "What the host costs (llama.cpp Q4_1, 2 threads)", series, bounds)


if __name__ == "__main__":
    main()
