"""What finished sequences cost that llama.cpp keeps for prefix sharing: the steps of one request beside them.

    python -m benchmarks.bench_kept_prefixes

llama.cpp's attention reads every cell up to the last used one, whoever holds it. Engines that keep 0, 500 and 1,000
tokens take turns in one process, 64 tokens each time.
"""

from __future__ import annotations

import itertools
import os
import time

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from benchmarks.harness import Bound, Series, write
from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.scheduling.cell_pool import KEPT_TOKENS
from llmlab.trace import Request

KEPT = (0, KEPT_TOKENS, 500, 1000)
NUM_TOKENS, ROUNDS, THREADS = 64, 15, 2
SERIAL = itertools.count()


def serve(engine: LlamaCppEngine, prompt: list[int], num_tokens: int) -> float:
    """Seconds per step of one request, without its prefill."""
    sampling = {"temperature": 0.0, "max_tokens": num_tokens, "ignore_eos": True}
    name = f"r{next(SERIAL)}"
    engine.add_request(Request(request_id=name, arrival_s=0.0, prompt_token_ids=tuple(prompt), sampling=sampling))
    engine.step()
    started, num_steps = time.perf_counter(), 0
    while engine.has_unfinished_requests():
        engine.step()
        num_steps += 1
    return (time.perf_counter() - started) / max(1, num_steps)


def engine_that_keeps(num_tokens: int, gguf: str) -> LlamaCppEngine:
    options = {"threads": THREADS, "kept_tokens": num_tokens, "prefix_caching": num_tokens > 0}
    engine = LlamaCppEngine(EngineConfig("llamacpp", "smollm2-135m", gguf, quant="Q4_1", options=options))
    for start in range(100, 100 + num_tokens, 100):
        serve(engine, list(range(10 * start, 10 * start + 99)), 2)
    return engine


def main() -> None:
    gguf = str(models.get("smollm2-135m").gguf("Q4_1"))
    engines = {kept: engine_that_keeps(kept, gguf) for kept in KEPT}
    series = {kept: Series(f"Q4_1, 1 request beside {kept} kept tokens", "ms a step") for kept in KEPT}
    for number in range(ROUNDS):
        for kept in KEPT[:: 1 if number % 2 else -1]:
            series[kept].values.append(1e3 * serve(engines[kept], [7, 8, 9, number + 11], NUM_TOKENS))
    base = series[0].median
    bounds = [
        Bound(f"{kept} kept tokens, against none", series[kept].median / base, 1.03, at_least=False)
        for kept in (KEPT_TOKENS,)
    ]
    notes = [f"{kept} kept tokens: {series[kept].median / base:.3f} of a step without any." for kept in KEPT[1:]]
    write("kept_prefixes", "llama.cpp: what kept prefixes cost", list(series.values()), bounds, notes)


if __name__ == "__main__":
    main()
