"""vLLM through our handle and host, tracing on, against vLLM as it is shipped (`LLM.generate`), with the same settings.

    python -m benchmarks.bench_vllm                     # CPU: SmolLM2 in float32, 1 and 16 requests
    python -m benchmarks.bench_vllm --gpu smollm2       # one GPU, bfloat16: 1, 32 and 256 requests
    python -m benchmarks.bench_vllm --gpu 8b            # the same with random weights in the shape of Llama-3-8B
    python -m benchmarks.bench_vllm --tp 2              # tensor parallel on 2 (4, ...) GPUs against one: 8B-shaped

Greedy, every answer as long as asked for; no two prompts are alike. Each peer is a process of its own; all are loaded,
and they take turns round by round: a ratio is the median of the ratios of neighbours. The tracer is measured too: how
much longer a step is with it, the time in its hooks, where the scheduler waits for it, and the time for its records,
while a GPU computes the next step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Bound, Series, in_fresh_process, write
from benchmarks.worker import Worker, answer_questions
from llmlab import models

MODEL = "smollm2-135m"
WARM_UP_TOKENS = 8
_SERIAL = itertools.count()
Serve = Callable[[list[list[int]], int], int]
# What our engine sets for itself, for every peer; one thread computes, one core is left.
CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GOMP_SPINCOUNT": "1000",
    "TORCH_COMPILE_DISABLE": "1",
}
TRACES = Path(__file__).parent.parent / "datasets" / "traces"
# The shape of Llama-3-8B with random weights: how fast a step is does not depend on their values.
SHAPE_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
}


@dataclass(frozen=True)
class Scale:
    """What is run, and what must hold. `arguments` are those of vLLM's EngineArgs."""

    label: str
    batch_sizes: tuple[int, ...]
    num_prompt_tokens: int
    num_output_tokens: int
    arguments: dict[str, Any]
    bound: float
    tracer_bound: float | None = None
    options: dict[str, Any] = field(default_factory=dict)  # more arguments, which our handle takes by --opt


_GPU: dict[str, Any] = dict(
    batch_sizes=(1, 32, 256),
    num_prompt_tokens=128,
    num_output_tokens=256,
    arguments={"dtype": "bfloat16", "max_num_seqs": 256, "max_num_batched_tokens": 8192, "max_model_len": 1024},
    bound=0.99,
    tracer_bound=0.005,
)
_HALF = {"gpu_memory_utilization": 0.45}  # two peers share a GPU
# Three do, of which one has all the weights on it: room for the KV of 256 requests of 384 tokens on 80 GB.
_ALONE, _SPLIT = {"gpu_memory_utilization": 0.42}, {"gpu_memory_utilization": 0.24}
# Of the most requests: so many GPUs against one.
_SCALING = {2: 1.55}
SCALES = {
    "cpu": Scale(
        "SmolLM2 float32 on a CPU",
        (1, 16),
        32,
        64,
        {"dtype": "float32", "max_num_seqs": 16, "max_num_batched_tokens": 512, "max_model_len": 512},
        bound=0.98,
        options={
            "enforce_eager": True,
            "block_size": 32,
            "num_gpu_blocks_override": 400,
            "kv_cache_memory_bytes": 2**26,
        },
    ),
    "smollm2": Scale("SmolLM2 bfloat16", **_GPU, options=_HALF),
    "8b": Scale("8B-shaped bfloat16", **_GPU, options={**_HALF, "load_format": "dummy", "hf_overrides": SHAPE_8B}),
}


def set_environment(scale_name: str) -> None:
    """For this process, and for the peers that it starts."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if scale_name == "cpu":
        os.environ |= CPU_ENVIRONMENT


def prompts(number: int, scale: Scale, seed: int) -> list[list[int]]:
    """Random tokens: no two prompts share a prefix, whether of one seed or of several."""
    rng = random.Random(1000 * seed + number)
    return [[rng.randrange(1000, 40000) for _ in range(scale.num_prompt_tokens)] for _ in range(number)]


def as_shipped(scale: Scale, options: dict[str, Any]) -> Serve:
    """`LLM.generate`: the engine core in a process of its own, async scheduling where vLLM uses it."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(str(models.get(MODEL).hf_dir), disable_log_stats=True, seed=0, **(scale.arguments | options))

    def serve(prompts: list[list[int]], num_tokens: int) -> int:
        sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        outputs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], sampling, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return serve


def through_handle(scale: Scale, options: dict[str, Any]) -> Serve:
    """What a notebook has: EngineHandle, host process, messages, tracer."""
    import llmlab

    arguments = scale.arguments
    engine = llmlab.load(
        MODEL,
        engine="vllm",
        dtype=arguments["dtype"],
        seqs=arguments["max_num_seqs"],
        step_tokens=arguments["max_num_batched_tokens"],
        ctx=arguments["max_model_len"],
        options=options,
    )

    def serve(prompts: list[list[int]], num_tokens: int) -> int:
        run = engine.batch(prompts, temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        return sum(result.num_output_tokens for result in run.wait())

    return serve


PEERS = {"vLLM as shipped": as_shipped, "llmlab": through_handle}


def answer_as(serve: Serve, scale: Scale, *, warm_up_tokens: int = WARM_UP_TOKENS) -> None:
    """What the process of a peer does: output tokens per second for each [number of requests, seed] it is asked.

    Seed 0 warms up: answers of `warm_up_tokens`.
    """

    def answer(question: list[int]) -> float:
        number, seed = question
        asked = prompts(number, scale, seed)
        started = time.perf_counter()
        num_tokens = serve(asked, scale.num_output_tokens if seed else warm_up_tokens)
        return num_tokens / (time.perf_counter() - started)

    answer_questions(answer)


def measure_tracer(scale: Scale, options: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """The engine without host, traced and untraced by turns. For each batch size [rounds] values of: the time of a step
    in s, what tracing adds to it, and the time inside the tracer's hooks and for its records, as shares of a step.
    """
    from llmlab.engines.base import EngineConfig
    from llmlab.engines.vllm import VllmEngine
    from llmlab.engines.vllm_tracer import Tracer

    arguments = scale.arguments
    engine = VllmEngine(
        EngineConfig(
            "vllm",
            MODEL,
            str(models.get(MODEL).hf_dir),
            dtype=arguments["dtype"],
            max_num_seqs=arguments["max_num_seqs"],
            token_budget=arguments["max_num_batched_tokens"],
            max_model_len=arguments["max_model_len"],
            options=options,
        )
    )
    traced, untraced = engine._tracer, Tracer(engine.core.scheduler, level="off")
    untraced.epoch_s = traced.epoch_s
    clock = _timed(traced)
    found: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for number in scale.batch_sizes:
            step_s, spent_s = {}, {}
            for tracer in (untraced, traced)[:: 1 if turn % 2 else -1]:  # whoever is second finds a warmer machine
                engine._tracer.detach()
                engine.core.forget_prefixes()  # unseen: all blocks at once are no work of a step
                engine._tracer = tracer
                tracer.attach()
                hooks_s, records_s = tracer.cost_s, clock["records_s"]
                step_s[tracer], num_steps = _step_s(engine, scale, prompts(number, scale, 100 + 2 * turn), turn)
                spent_s[tracer] = (tracer.cost_s - hooks_s) / num_steps, (clock["records_s"] - records_s) / num_steps
            shares = {
                "added": step_s[traced] / step_s[untraced] - 1,
                "hooks": spent_s[traced][0] / step_s[traced],
                "records": spent_s[traced][1] / step_s[traced],
                "step": step_s[traced],
            }
            for name, value in shares.items():
                if turn:  # the first turn warms up
                    found.setdefault(f"{number} {name}", []).append(value)
    assert not traced.num_errors, traced.last_error
    engine.close()
    return found


def _step_s(engine: Any, scale: Scale, asked: list[list[int]], turn: int) -> tuple[float, int]:
    """Mean time of a step, and the number of steps."""
    from llmlab.trace import Request

    sampling = {"temperature": 0.0, "max_tokens": scale.num_output_tokens, "ignore_eos": True}
    for i, ids in enumerate(asked):
        name = f"r{next(_SERIAL)}-{turn}-{i}"
        engine.add_request(Request(request_id=name, arrival_s=0.0, prompt_token_ids=tuple(ids), sampling=sampling))
    started, num_steps = time.perf_counter(), 0
    while engine.has_unfinished_requests():
        engine.step()
        num_steps += 1
    return (time.perf_counter() - started) / num_steps, num_steps


def _timed(tracer: Any) -> dict[str, float]:
    """A clock that runs while the tracer makes records."""
    clock, take = {"records_s": 0.0}, tracer.take_columns

    def timed_take() -> Any:
        started = time.perf_counter()
        steps = take()
        clock["records_s"] += time.perf_counter() - started
        return steps

    tracer.take_columns = timed_take
    return clock


def in_turns(
    script: str, scale: Scale, peers: Mapping[str, Sequence[str]], rounds: int
) -> dict[tuple[str, int], Series]:
    """Rates of each peer and batch size, [rounds]. `peers`: what it is called here -> the arguments with which
    `script` runs answer_as() for it.
    """
    series = {
        (peer, number): Series(f"{scale.label}, {number} requests: {peer}", "tok/s")
        for peer in peers
        for number in scale.batch_sizes
    }
    workers = {}
    for peer, arguments in peers.items():
        workers[peer] = Worker(script, *arguments)
        for number in scale.batch_sizes:  # before the next one is loaded: vLLM measures the free memory
            workers[peer].ask([number, 0])
    for turn in range(rounds):
        for number in scale.batch_sizes:
            for peer in list(peers)[:: 1 if turn % 2 else -1]:
                series[peer, number].values.append(workers[peer].ask([number, 1 + turn]))
                print(series[peer, number].name, series[peer, number], flush=True)
    for worker in workers.values():
        worker.close()
    return series


def paired(one: Series, other: Series) -> float:
    return statistics.median(a / b for a, b in zip(one.values, other.values, strict=True))


def _arguments(peer: str, scale_name: str, options: dict[str, Any]) -> list[str]:
    scale = ["--gpu", scale_name] if scale_name != "cpu" else []
    return ["--peer", peer, "--options", json.dumps(options), *scale]


def against_vllm(scale_name: str, rounds: int) -> tuple[list[Series], list[Bound]]:
    scale = SCALES[scale_name]
    peers = {peer: _arguments(peer, scale_name, scale.options) for peer in PEERS}
    series = in_turns(__file__, scale, peers, rounds)
    bounds = [
        Bound(
            f"{scale.label}, {number} requests: llmlab against vLLM as shipped",
            paired(series["llmlab", number], series["vLLM as shipped", number]),
            scale.bound,
        )
        for number in scale.batch_sizes
    ]
    return list(series.values()), bounds


def cost_of_tracer(scale_name: str, rounds: int) -> tuple[list[Series], list[Bound]]:
    scale = SCALES[scale_name]
    found: Any = in_fresh_process(__file__, "--rounds", str(rounds), *_arguments("tracer", scale_name, scale.options))
    titles = {
        "added": "what tracing adds to a step",
        "hooks": "inside the hooks of the tracer",
        "records": "for the records of the tracer",
        "step": "a step, traced, without host",
    }
    series, bounds = [], []
    for name, values in found.items():
        number, what = name.split()
        factor, unit = (1e3, "ms") if what == "step" else (100.0, "% of a step")
        title = f"{scale.label}, {number} requests: {titles[what]}"
        series.append(Series(title, unit, [factor * value for value in values]))
        if what == "added" and scale.tracer_bound is not None:
            bounds.append(Bound(f"{title}, %", series[-1].median, 100 * scale.tracer_bound, at_least=False))
    return series, bounds


def tensor_parallel(scale_name: str, size: int, rounds: int) -> tuple[list[Series], list[Bound]]:
    scale = SCALES[scale_name]
    one, many, shipped = "llmlab on one GPU", f"llmlab on {size} GPUs", f"vLLM as shipped on {size} GPUs"
    split = {**scale.options, **_SPLIT, "tensor_parallel_size": size}
    peers = {
        one: _arguments("llmlab", scale_name, {**scale.options, **_ALONE}),
        many: _arguments("llmlab", scale_name, split),
        shipped: _arguments("vLLM as shipped", scale_name, split),
    }
    series = in_turns(__file__, scale, peers, rounds)
    gains, bounds = [], []
    for number in scale.batch_sizes:
        ratios = [a / b for a, b in zip(series[many, number].values, series[one, number].values, strict=True)]
        gains.append(Series(f"{scale.label}, {number} requests: {size} GPUs against one", "x", ratios))
    if size in _SCALING:
        bounds.append(Bound(gains[-1].name, gains[-1].median, _SCALING[size]))
    for number in scale.batch_sizes:
        ratio = paired(series[many, number], series[shipped, number])
        bounds.append(Bound(f"{number} requests, {size} GPUs: llmlab against vLLM as shipped", ratio, scale.bound))
    return [*series.values(), *gains], bounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=[name for name in SCALES if name != "cpu"])
    parser.add_argument(
        "--tp", type=int, default=1, help="GPUs that share each layer; 8B-shaped, if --gpu is not given"
    )
    parser.add_argument("--rounds", type=int, default=8, help="measurements of each peer")
    parser.add_argument("--peer", choices=[*PEERS, "tracer"], help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    scale_name = arguments.gpu or ("8b" if arguments.tp > 1 else "cpu")
    scale = SCALES[scale_name]
    set_environment(scale_name)
    if arguments.peer == "tracer":
        print(json.dumps(measure_tracer(scale, arguments.options, arguments.rounds)))
    elif arguments.peer:
        answer_as(PEERS[arguments.peer](scale, arguments.options), scale)
    elif arguments.tp > 1:
        name, found = f"vllm_tp{arguments.tp}_{scale_name}", tensor_parallel(scale_name, arguments.tp, arguments.rounds)
        write(name, f"vLLM on {arguments.tp} GPUs, traced", *found)
        shutil.copy(RESULTS / f"{name}.json", TRACES)  # for notebook 08: an installed package has no benchmarks
    else:
        series, bounds = against_vllm(scale_name, arguments.rounds)
        more_series, more_bounds = cost_of_tracer(scale_name, arguments.rounds)
        title = "vLLM: what the notebook gets, against vLLM as shipped"
        name = "vllm_cpu" if scale_name == "cpu" else f"vllm_gpu_{scale_name}"
        write(name, title, series + more_series, bounds + more_bounds)


if __name__ == "__main__":
    main()
