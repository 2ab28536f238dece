"""What it costs a vLLM server to be seen from inside: vLLM's server as shipped, with our scheduler, and followed.

    python -m benchmarks.bench_follow                   # CPU: SmolLM2 in float32, 1 and 16 requests
    python -m benchmarks.bench_follow --gpu smollm2     # one GPU, bfloat16: 1, 32 and 256 requests
    python -m benchmarks.bench_follow --gpu 8b          # the same with random weights in the shape of Llama-3-8B

Two servers with the same settings take turns round by round, and the traced one is asked twice: while nobody follows
it, and while a process of its own does, as a notebook does after `%llm connect --trace`. One HTTP request brings all
prompts of a turn, so that the client costs next to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm import SCALES, Scale, paired, prompts, set_environment
from benchmarks.harness import Bound, Series, write
from benchmarks.worker import Worker, answer_questions
from llmlab import models
from llmlab.engines.trace_listener import TOKEN
from llmlab.engines.vllm_scheduler import ADDRESS
from tests.engines.vllm_serving import ON_CPU, served
from tests.local_servers import free_port

START_S, LATE_S = 900, 10
NAME, SECRET = "served", "a-token-of-this-benchmark"
SHIPPED, ALONE, FOLLOWED = "as shipped", "traced, nobody follows", "traced and followed"
MAX_LOST = 1.0  # %, of a server that is followed: as for a live view of an engine of one's own
OURS = ["--scheduler-cls", "llmlab.engines.vllm_scheduler.TracedScheduler"]


def flags_of(scale: Scale) -> list[str]:
    """The settings of a scale, as flags of `vllm serve`."""
    flags = ["--served-model-name", NAME]
    for name, value in (scale.arguments | scale.options).items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


@contextmanager
def servers(scale: Scale, on_gpu: bool, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Addresses of the server as shipped, of the traced one, and of its trace."""
    model, trace = models.get("smollm2-135m").hf_dir, f"http://127.0.0.1:{free_port()}"
    environment = {} if on_gpu else {**ON_CPU, "VLLM_CPU_KVCACHE_SPACE": "1"}
    traced = {**environment, ADDRESS: trace, TOKEN: SECRET}
    with ExitStack() as stack:
        # one after the other: vLLM measures the free memory
        shipped_url, traced_url = (
            stack.enter_context(served(model, folder / log, flags, environment=variables, start_s=START_S))
            for log, flags, variables in (
                ("shipped.log", flags_of(scale), environment),
                ("traced.log", [*flags_of(scale), *OURS], traced),
            )
        )
        yield shipped_url, traced_url, trace


def rate_of(url: str, scale: Scale, number: int, seed: int, num_tokens: int) -> float:
    """Output tokens a second."""
    body: dict[str, Any] = {"model": NAME, "prompt": prompts(number, scale, seed), "max_tokens": num_tokens}
    body |= {"temperature": 0.0, "ignore_eos": True}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=START_S) as response:
        usage = json.load(response)["usage"]
    assert usage["completion_tokens"] == number * num_tokens, usage
    return usage["completion_tokens"] / (time.perf_counter() - started)


def follower(url: str, trace: str) -> None:
    """The process that follows; it leaves when it has seen so many tokens come out."""
    import llmlab

    far: Any = None

    def answer(num_tokens: int) -> int:
        nonlocal far
        if not num_tokens:
            far = llmlab.connect(url, trace=trace)
            return 0
        end, seen = time.monotonic() + LATE_S, 0
        while seen < num_tokens and time.monotonic() < end:
            time.sleep(0.05)
            seen = sum(len(step.tokens) for one in far.traces for step in one.step_records)
        assert not far.gaps, far.gaps
        far.unload()
        return seen

    answer_questions(answer)


def measure(scale: Scale, on_gpu: bool, rounds: int) -> dict[tuple[str, int], Series]:
    """Rates, [rounds], of each way and number of requests."""
    label = f"{scale.label}, {{}} requests: {{}}"
    ways = (SHIPPED, ALONE, FOLLOWED)
    series = {(way, n): Series(label.format(n, way), "tok/s") for n in scale.batch_sizes for way in ways}
    with tempfile.TemporaryDirectory() as folder, servers(scale, on_gpu, Path(folder)) as (shipped, traced, trace):
        os.environ[TOKEN] = SECRET
        watcher = Worker(__file__, "--follow", traced, trace)
        for turn in range(rounds + 1):  # the first one warms up
            for number in scale.batch_sizes:
                for way in ways[:: 1 if turn % 2 else -1]:
                    if way == FOLLOWED:
                        watcher.ask(0)
                    # no prompt comes twice
                    url, seed = (shipped if way == SHIPPED else traced), 10 * turn + ways.index(way)
                    rate = rate_of(url, scale, number, seed, scale.num_output_tokens)
                    if way == FOLLOWED:
                        num_tokens = number * scale.num_output_tokens
                        assert watcher.ask(num_tokens) == num_tokens, "the follower has not seen all"
                    if turn:
                        series[way, number].values.append(rate)
                        print(series[way, number].name, series[way, number], flush=True)
        watcher.close()
    return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=[name for name in SCALES if name != "cpu"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--follow", nargs=2, metavar=("URL", "TRACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        follower(*arguments.follow)
        return
    scale_name = arguments.gpu or "cpu"
    set_environment(scale_name)
    scale = SCALES[scale_name]
    series = measure(scale, arguments.gpu is not None, arguments.rounds)
    bounds = []
    for number in scale.batch_sizes:
        for way, other in ((FOLLOWED, ALONE), (ALONE, SHIPPED)):
            lost = 100 * (1 - paired(series[way, number], series[other, number]))
            bounds.append(Bound(f"{number} requests: tokens/s lost, {way}, against {other}, %", lost, MAX_LOST, False))
    name = "cpu" if arguments.gpu is None else f"gpu_{arguments.gpu}"
    title = "What it costs a vLLM server to be seen from inside"
    write(f"follow_{name}", title, list(series.values()), bounds)


if __name__ == "__main__":
    main()
