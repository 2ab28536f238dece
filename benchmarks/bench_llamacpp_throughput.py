"""llama.cpp through our host against its peers: the `Llama` class, llama-server in-process, our own bare loop.

    python -m benchmarks.bench_llamacpp_throughput

16 prompts x 64 greedy tokens, 2 threads, tracing on; and the same prompts one at a time. Each measurement is a fresh
process; the peers take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # for every peer: without it, 2 threads spin each other to a crawl

from benchmarks.harness import Bound, Series, in_fresh_process, write
from llmlab import models

PROMPTS = [f"Question {i}: what makes the number {i * 7 + 3} interesting? Answer:" for i in range(16)]
NUM_TOKENS, NUM_THREADS, NUM_SINGLE = 64, 2, 4


def gguf(quant: str) -> str:
    return str(models.get("smollm2-135m").gguf(quant))


def timed(serve: Callable[[list[str]], int], at_once: bool) -> float:
    """Output tokens per second; one at a time over the first few prompts, or all at once."""
    serve(["Warm up, please."])
    started = time.perf_counter()
    num_tokens = serve(PROMPTS) if at_once else sum(serve([p]) for p in PROMPTS[:NUM_SINGLE])
    return num_tokens / (time.perf_counter() - started)


def llama_class(quant: str) -> Callable[[list[str]], int]:
    from llama_cpp import Llama

    llama = Llama(
        gguf(quant), n_ctx=2048, n_threads=NUM_THREADS, n_threads_batch=NUM_THREADS, verbose=False, flash_attn=True
    )

    def serve(prompts: list[str]) -> int:
        num_tokens = 0
        for prompt in prompts:
            ids = llama.tokenize(prompt.encode(), add_bos=False, special=True)
            stream = llama.generate(ids, temp=0.0)  # goes on after the end of the answer
            num_tokens += sum(1 for _ in zip(range(NUM_TOKENS), stream, strict=False))
        return num_tokens

    return serve


def llama_server(quant: str) -> Callable[[list[str]], int]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf(quant)
    params.n_parallel, params.n_ctx, params.warmup = 16, 4096, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = NUM_THREADS
    server = xllamacpp.Server(params)

    def one(prompt: str) -> int:
        answer = server.handle_completions(
            {"prompt": prompt, "n_predict": NUM_TOKENS, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        )
        return int(answer["usage"]["completion_tokens"])

    def serve(prompts: list[str]) -> int:
        with ThreadPoolExecutor(16) as threads:
            return sum(threads.map(one, prompts))

    return serve


def bare_loop(quant: str) -> Callable[[list[str]], int]:
    """Our engine without host, messages and trace: schedule, decode, sample, and nothing else."""
    from llmlab.engines.base import EngineConfig
    from llmlab.engines.llamacpp import LlamaCppEngine
    from llmlab.trace import Request

    engine = LlamaCppEngine(
        EngineConfig("llamacpp", "smollm2-135m", gguf(quant), quant=quant, options={"threads": NUM_THREADS})
    )

    serial = itertools.count()

    def serve(prompts: list[str]) -> int:
        for prompt in prompts:
            sampling = {"temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
            name, ids = f"r{next(serial)}", tuple(engine.tokenize(prompt))
            engine.add_request(Request(request_id=name, arrival_s=0.0, prompt_token_ids=ids, sampling=sampling))
        num_tokens = 0
        while engine._generations:
            plan = engine.scheduler.schedule()
            rows = engine._fill_batch(plan)
            engine._forward(plan)
            num_tokens += len(engine._sample(plan, rows)[0])
        engine._ended.clear()
        return num_tokens

    return serve


def handle(quant: str) -> Callable[[list[str]], int]:
    """What a notebook has: EngineHandle, host process, messages, trace."""
    import llmlab

    engine = llmlab.load("smollm2-135m", engine="llamacpp", quant=quant, options={"threads": NUM_THREADS})

    def serve(prompts: list[str]) -> int:
        run = engine.batch(prompts, raw=True, temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
        run.wait()
        return sum(result.num_output_tokens for result in run.results)

    return serve


PEERS = {"Llama": llama_class, "llama-server": llama_server, "bare loop": bare_loop, "llmlab": handle}


def measure(quant: str, rounds: int) -> tuple[list[Series], list[Bound]]:
    series = {
        (peer, at_once): Series(f"{quant}, {'16 at once' if at_once else '1 at a time'}: {peer}", "tok/s")
        for peer in PEERS
        for at_once in (False, True)
        if not (peer == "Llama" and at_once)
    }
    for round_number in range(rounds):
        order = list(series)
        for peer, at_once in order[round_number % len(order) :] + order[: round_number % len(order)]:
            got = in_fresh_process(__file__, "--peer", peer, "--quant", quant, *(["--at-once"] if at_once else []))
            series[peer, at_once].values.append(got["tok_per_s"])
            print(series[peer, at_once], flush=True)
    ours, one = series["llmlab", True].median, series["llmlab", False].median
    over_class = {"Q4_1": 2.0, "F16": 3.7}[quant]
    over_server = {"Q4_1": 1.0, "F16": 1.25}[quant]
    return list(series.values()), [
        Bound(f"{quant}: 16 requests, against sequential `Llama`", ours / series["Llama", False].median, over_class),
        Bound(f"{quant}: 16 requests, against llama-server", ours / series["llama-server", True].median, over_server),
        Bound(f"{quant}: 1 request, against `Llama`", one / series["Llama", False].median, 0.97),
        Bound(f"{quant}: 16 requests, against our bare loop", ours / series["bare loop", True].median, 0.985),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--quant", default="Q4_1")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.peer:
        print(json.dumps({"tok_per_s": timed(PEERS[arguments.peer](arguments.quant), arguments.at_once)}))
        return
    series: list[Series] = []
    bounds: list[Bound] = []
    for quant in ("Q4_1", "F16"):
        gguf(quant)
        more_series, more_bounds = measure(quant, arguments.rounds)
        series += more_series
        bounds += more_bounds
    write("llamacpp_throughput", "llama.cpp: what the notebook gets, against its peers", series, bounds)


if __name__ == "__main__":
    main()
