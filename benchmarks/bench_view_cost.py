"""What a live view costs the engine that it shows: tokens/s with it and without, by turns within one run.

    python -m benchmarks.bench_view_cost          # llama.cpp on every core of this machine
    python -m benchmarks.bench_view_cost --gpu    # vLLM on a GPU: random weights in the shape of Llama-3-8B

A kernel like that of a notebook, whose messages are read by this process and drawn by nobody. The view comes and goes
every 1.7 s while the run goes on: a window with it is compared with the two beside it, so a machine that changes its
speed, and a context that grows, cost both the same. What showing a view for the first time takes is not in it: see
bench_views.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jupyter_client.manager import start_new_kernel

from benchmarks.bench_vllm import SHAPE_8B, set_environment
from benchmarks.harness import Bound, Series, write

MAX_LOST = 1.0  # %
# In the kernel. Prints what measured() reads: [with the view?, begin, end, CPU seconds of the kernel] of each window,
# in Unix time, and [end, tokens] of each step.
CODE = """import json, time, llmlab
from llmlab.views.live import live_of

WINDOW_S, BETWEEN_S = 1.5, 0.2  # some looks of a view beside an engine; between: it catches up
engine = llmlab.load("smollm2-135m", **LOAD)
prompts = [f"Tell me about the number {i}." for i in range(256)]

def turn(num_requests, num_tokens):
    run = engine.batch(prompts[:num_requests], max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
    view, live, windows, is_shown = llmlab.watch(run), live_of(run), [], True
    display(view)
    time.sleep(WINDOW_S)
    while not run.done:
        begin_s, cpu_s = time.time(), time.process_time()
        time.sleep(WINDOW_S)
        windows.append([is_shown, begin_s, time.time(), time.process_time() - cpu_s])
        is_shown = not is_shown
        live.attach(view) if is_shown else live.detach(view)
        time.sleep(BETWEEN_S)
    run.wait()
    live.attach(view)
    trace = run.trace
    steps = [[trace.header.started_at + step.t_s, len(step.tokens)] for step in trace.step_records]
    print(json.dumps([windows[:-1], steps]))  # the run may have ended in the last one
"""


@dataclass(frozen=True)
class Engine:
    """What is loaded, and what is asked of it: name -> (requests, tokens of each), some 8 to 15 s."""

    label: str
    load: dict[str, Any]
    loads: dict[str, tuple[int, int]]

    @property
    def code(self) -> str:
        return f"LOAD = {self.load!r}\n{CODE}"


LLAMA = Engine(
    "llama.cpp",
    {"engine": "llamacpp", "quant": "Q4_1", "ctx": 2048, "seqs": 16},
    {"1 request": (1, 1900), "16 requests": (16, 240)},
)
VLLM = Engine(
    "vLLM, 8B-shaped",
    {
        "engine": "vllm", "dtype": "bfloat16", "seqs": 256, "ctx": 2048,
        "options": {"load_format": "dummy", "hf_overrides": SHAPE_8B},
    },
    {"1 request": (1, 1900), "32 requests": (32, 1500), "256 requests": (256, 800)},
)  # fmt: skip
Ask = Callable[[str], str]  # code -> the last line that it prints


@contextmanager
def kernel() -> Iterator[Ask]:
    """Runs code in a kernel whose messages nobody draws."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield lambda code: _last_line(client, code)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _last_line(client: Any, code: str) -> str:
    texts: list[str] = []

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))
        if message["msg_type"] == "stream":
            texts.append(message["content"]["text"])

    client.execute_interactive(code, output_hook=keep, timeout=600)
    return ["", *"".join(texts).splitlines()][-1]


def turns(engine: Engine, ask: Ask, rounds: int) -> dict[str, list[Any]]:
    """What each turn printed, by load."""
    ask(engine.code)
    ask("turn(16, 100)")  # warms up
    return {name: [json.loads(ask(f"turn{load}")) for _ in range(rounds)] for name, load in engine.loads.items()}


def measured(found: dict[str, list[Any]], label: str) -> tuple[list[Series], list[Bound]]:
    """Tokens/s lost to the view, a value for each window that has two neighbours, and CPU for it."""
    series, bounds = [], []
    for name, rounds in found.items():
        lost = [value for windows, steps in rounds for value in _lost(windows, steps)]
        shares = [_cpu(windows) for windows, _ in rounds]
        title = f"{label}, {name}"
        series.append(Series(f"{title}: tokens/s lost to a view", "%", lost))
        series.append(Series(f"{title}: CPU for the view, in the kernel", "% of a core", shares))
        bounds.append(Bound(f"{title}: tokens/s lost to a view, median, %", series[-2].median, MAX_LOST, False))
    return series, bounds


def _lost(windows: list[Any], steps: list[Any]) -> Iterator[float]:
    """Each window against the mean of its neighbours, in %."""
    rates = []
    for is_shown, begin_s, end_s, _ in windows:
        inside = [(t_s, tokens) for t_s, tokens in steps if begin_s <= t_s < end_s]
        rates.append((is_shown, sum(tokens for _, tokens in inside[1:]) / (inside[-1][0] - inside[0][0])))
    for (before, after), (is_shown, rate) in zip(zip(rates, rates[2:], strict=False), rates[1:], strict=False):
        beside = (before[1] + after[1]) / 2
        yield 100 * (1 - rate / beside if is_shown else 1 - beside / rate)


def _cpu(windows: list[Any]) -> float:
    """Of windows with the view more than of those without, in % of a core."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for is_shown, begin_s, end_s, cpu_s in windows:
        shares[is_shown].append(100 * cpu_s / (end_s - begin_s))
    return statistics.mean(shares[True]) - statistics.mean(shares[False])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.gpu:
        set_environment("8b")
    engine = VLLM if arguments.gpu else LLAMA
    with kernel() as ask:
        series, bounds = measured(turns(engine, ask, arguments.rounds), engine.label)
    where = "a GPU" if arguments.gpu else f"{os.cpu_count()} cores, all of which compute"
    name = "view_cost_gpu" if arguments.gpu else "view_cost"
    write(name, f"What a live view costs the engine that it shows, on {where}", series, bounds)


if __name__ == "__main__":
    main()
