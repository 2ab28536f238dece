"""llama.cpp through our host against its peers: the `Llama` class, llama-server in-process, our own bare loop.

    python -m benchmarks.bench_llamacpp_throughput

16 prompts x 64 greedy tokens, 2 threads, tracing on; and the first of them one at a time. Each peer lives in a process
of its own, all are loaded, and they take turns, prompt by prompt and batch by batch: these machines change their speed
by 20 % within minutes, so each ratio is that of neighbours, and the median of all rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # for every peer: without it, 2 threads spin each other to a crawl

from benchmarks.harness import Bound, Series, write
from benchmarks.worker import Worker, answer_questions
from llmlab import models

PROMPTS = [f"Question {i}: what makes the number {i * 7 + 3} interesting? Answer:" for i in range(16)]
NUM_TOKENS, NUM_THREADS, NUM_SINGLE = 64, 2, 4


def gguf(quant: str) -> str:
    return str(models.get("smollm2-135m").gguf(quant))


def rate(serve: Callable[[list[str]], int], prompts: list[str]) -> float:
    """Output tokens per second."""
    started = time.perf_counter()
    return serve(prompts) / (time.perf_counter() - started)


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
IN_BATCHES = ("llama-server", "bare loop", "llmlab")
# quant -> bounds of 16 requests: against sequential `Llama`, against llama-server
BOUNDS = {"Q4_1": (2.0, 1.0), "F16": (3.7, 1.25)}


def measure_rounds(quant: str, rounds: int) -> tuple[list[list[float]], list[list[float]]]:
    """Rates by turns: one at a time, [rounds * prompts][peer of PEERS]; 16 at once, [rounds][peer of IN_BATCHES]."""
    workers = {name: Worker(__file__, "--peer", name, "--quant", quant) for name in PEERS}
    single, batch = [], []
    for worker in workers.values():
        worker.ask(["Warm up, please."])
    for turn in range(rounds):
        for i, prompt in enumerate(PROMPTS[:NUM_SINGLE]):
            single.append(_ask_all(workers, tuple(PEERS), [prompt], turn + i))
        batch.append(_ask_all(workers, IN_BATCHES, PROMPTS, turn))
    for worker in workers.values():
        worker.close()
    return single, batch


def _ask_all(workers: Mapping[str, Worker], names: tuple[str, ...], prompts: list[str], turn: int) -> list[float]:
    """One rate for each name; they are asked forwards and backwards by turns, so that nobody is always the last."""
    rates = {name: workers[name].ask(prompts) for name in names[:: -1 if turn % 2 else 1]}
    return [rates[name] for name in names]


def ratio(rows: list[list[float]], peers: tuple[str, ...], one: str, other: str) -> float:
    """Median over the rounds."""
    return statistics.median(row[peers.index(one)] / row[peers.index(other)] for row in rows)


def measure(quant: str, rounds: int) -> tuple[list[Series], list[Bound]]:
    single, batch = measure_rounds(quant, rounds)
    peers = tuple(PEERS)
    series = [
        *(Series(f"{quant}, 1 at a time: {peer}", "tok/s", [row[i] for row in single]) for i, peer in enumerate(peers)),
        *(
            Series(f"{quant}, 16 at once: {peer}", "tok/s", [row[i] for row in batch])
            for i, peer in enumerate(IN_BATCHES)
        ),
    ]
    per_round = len(single) // len(batch)
    alone = [[row[0] for row in single[i * per_round : (i + 1) * per_round]] for i in range(len(batch))]
    over_class = statistics.median(row[-1] / statistics.mean(rates) for row, rates in zip(batch, alone, strict=True))
    bound_class, bound_server = BOUNDS[quant]
    return series, [
        Bound(f"{quant}: 16 requests, against sequential `Llama`", over_class, bound_class),
        Bound(
            f"{quant}: 16 requests, against llama-server",
            ratio(batch, IN_BATCHES, "llmlab", "llama-server"),
            bound_server,
        ),
        Bound(f"{quant}: 1 request, against `Llama`", ratio(single, peers, "llmlab", "Llama"), 0.97),
        Bound(f"{quant}: 16 requests, against our bare loop", ratio(batch, IN_BATCHES, "llmlab", "bare loop"), 0.985),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quant", choices=BOUNDS, help="only this one")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        serve = PEERS[arguments.peer](arguments.quant)
        answer_questions(lambda prompts: rate(serve, prompts))
        return
    series: list[Series] = []
    bounds: list[Bound] = []
    for quant in [arguments.quant] if arguments.quant else BOUNDS:
        gguf(quant)
        more_series, more_bounds = measure(quant, arguments.rounds)
        series += more_series
        bounds += more_bounds
    write("llamacpp_throughput", "llama.cpp: what the notebook gets, against its peers", series, bounds)


if __name__ == "__main__":
    main()
