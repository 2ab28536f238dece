"""vLLM through our handle and host, tracing on, against vLLM as it is shipped (`LLM.generate`), with the same settings.

    python -m benchmarks.bench_vllm                 # CPU: SmolLM2 in float32, 1 and 16 requests
    python -m benchmarks.bench_vllm --gpu           # one GPU: SmolLM2 and an 8B-shaped dummy in bfloat16, 1, 32, 256
    python -m benchmarks.bench_vllm --gpu --tp 2    # the dummy on two GPUs, against one

Greedy, every answer as long as asked for. Each peer is a fresh process that loads once; the peers take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Bound, Series, in_fresh_process, write
from llmlab import models

Serve = Callable[[list[list[int]], int], int]
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
    """How large a benchmark is on one kind of machine."""

    batch_sizes: tuple[int, ...]
    num_prompt_tokens: int
    num_output_tokens: int
    arguments: dict[str, Any]
    bound: float


CPU = Scale(
    (1, 16), 32, 64, {"dtype": "float32", "max_num_seqs": 16, "max_num_batched_tokens": 512, "max_model_len": 512}, 0.98
)
GPU = Scale(
    (1, 32, 256),
    128,
    256,
    {"dtype": "bfloat16", "max_num_seqs": 256, "max_num_batched_tokens": 8192, "max_model_len": 1024},
    0.99,
)


def prompts(number: int, scale: Scale) -> list[list[int]]:
    """Random tokens: no two prompts share a prefix."""
    rng = random.Random(number)
    return [[rng.randrange(1000, 40000) for _ in range(scale.num_prompt_tokens)] for _ in range(number)]


def as_shipped(scale: Scale, options: dict[str, Any]) -> Serve:
    """`LLM.generate`: the engine core in a process of its own, async scheduling where vLLM uses it."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    folder = str(models.get("smollm2-135m").hf_dir)
    llm = LLM(folder, disable_log_stats=True, seed=0, enable_prefix_caching=False, **(scale.arguments | options))

    def serve(prompts: list[list[int]], num_tokens: int) -> int:
        sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        outputs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], sampling, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return serve


def through_handle(scale: Scale, options: dict[str, Any]) -> Serve:
    """What a notebook has: EngineHandle, host process, messages, tracer."""
    import llmlab

    engine = llmlab.load("smollm2-135m", engine="vllm", **_load_arguments(scale, options))

    def serve(prompts: list[list[int]], num_tokens: int) -> int:
        run = engine.batch(prompts, temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        return sum(result.num_output_tokens for result in run.wait())

    return serve


def _load_arguments(scale: Scale, options: dict[str, Any]) -> dict[str, Any]:
    ours = {"dtype": "dtype", "max_num_seqs": "seqs", "max_num_batched_tokens": "step_tokens", "max_model_len": "ctx"}
    named = {ours[name]: value for name, value in scale.arguments.items() if name in ours}
    rest = {name: value for name, value in scale.arguments.items() if name not in ours}
    return {**named, "options": {**rest, **options, "prefix_caching": False}}


PEERS = {"vLLM as shipped": as_shipped, "llmlab": through_handle}


def measure_peer(peer: str, scale: Scale, options: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Output tokens per second, [rounds] for each batch size."""
    serve = PEERS[peer](scale, options)
    for number in scale.batch_sizes:
        serve(prompts(number, scale), 8)
    rates: dict[str, list[float]] = {str(number): [] for number in scale.batch_sizes}
    for _ in range(rounds):
        for number in scale.batch_sizes:
            asked = prompts(number, scale)
            started = time.perf_counter()
            num_tokens = serve(asked, scale.num_output_tokens)
            rates[str(number)].append(num_tokens / (time.perf_counter() - started))
    return rates


def measure(
    label: str, scale: Scale, options: dict[str, Any], turns: int, rounds: int
) -> tuple[list[Series], list[Bound]]:
    series = {
        (peer, number): Series(f"{label}, {number} requests: {peer}", "tok/s")
        for peer in PEERS
        for number in scale.batch_sizes
    }
    for turn in range(turns):
        for peer in list(PEERS)[:: 1 if turn % 2 else -1]:
            flags = ["--peer", peer, "--rounds", str(rounds), "--options", json.dumps(options)]
            rates: Any = in_fresh_process(__file__, *flags, *(["--gpu"] if scale is GPU else []))
            for number in scale.batch_sizes:
                series[peer, number].values += rates[str(number)]
                print(series[peer, number], flush=True)
    bounds = [
        Bound(
            f"{label}, {number} requests: llmlab against vLLM as shipped",
            series["llmlab", number].median / series["vLLM as shipped", number].median,
            scale.bound,
        )
        for number in scale.batch_sizes
    ]
    return list(series.values()), bounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--turns", type=int, help="processes for each peer")
    parser.add_argument("--rounds", type=int, default=3, help="measurements in each process")
    arguments = parser.parse_args()
    scale = GPU if arguments.gpu else CPU
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if not arguments.gpu:
        # the environment that our engine sets for itself, for the peer too; one thread computes, one core is left
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1", "GOMP_SPINCOUNT": "1000"}
        os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.peer:
        print(json.dumps(measure_peer(arguments.peer, scale, arguments.options, arguments.rounds)))
        return
    if not arguments.gpu:
        options = {
            "enforce_eager": True,
            "block_size": 32,
            "num_gpu_blocks_override": 400,
            "kv_cache_memory_bytes": 2**26,
        }
        series, bounds = measure("SmolLM2 float32", scale, options, arguments.turns or 3, arguments.rounds)
        write("vllm_cpu", "vLLM on a CPU: what the notebook gets, against vLLM as shipped", series, bounds)
        return
    dummy: dict[str, Any] = {"load_format": "dummy", "hf_overrides": SHAPE_8B}
    turns = arguments.turns or 1
    if arguments.tp == 1:
        series, bounds = measure("SmolLM2 bfloat16", scale, {}, turns, arguments.rounds)
        more_series, more_bounds = measure("8B-shaped bfloat16", scale, dummy, turns, arguments.rounds)
        write(
            "vllm_gpu",
            "vLLM on a GPU: the notebook against vLLM as shipped",
            series + more_series,
            bounds + more_bounds,
        )
        return
    one, _ = measure("8B-shaped on one GPU", scale, dummy, turns, arguments.rounds)
    many, bounds = measure(
        f"8B-shaped on {arguments.tp}", scale, {**dummy, "tensor_parallel_size": arguments.tp}, turns, arguments.rounds
    )
    gain = many[-1].median / one[-1].median
    bounds = [Bound(f"llmlab on {arguments.tp} GPUs against one, 256 requests", gain, 1.55)]
    write("vllm_tensor_parallel", "vLLM on several GPUs, traced", one + many, bounds)


if __name__ == "__main__":
    main()
