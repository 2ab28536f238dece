"""Our torch engine through handle and host, tracing on, against vLLM as shipped and transformers one by one.

    python -m benchmarks.bench_torch                   # CPU: SmolLM2 in float32, 16 requests
    python -m benchmarks.bench_torch --tracing         # only what tracing costs; nothing is written
    python -m benchmarks.bench_torch --gpu smollm2     # one GPU, bfloat16, CUDA graphs: 64 and 256 requests, vLLM only

Greedy, every answer as long as asked for; no two prompts are alike. Each peer is a process of its own; all are loaded,
and they take turns round by round: a ratio is the median of the ratios of neighbours. What tracing costs
is measured in the engine without host: steps with and without it by turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.bench_vllm import (
    MODEL,
    SCALES,
    WARM_UP_TOKENS,
    Scale,
    Serve,
    answer_as,
    as_shipped,
    in_turns,
    paired,
    prompts,
    set_environment,
)
from benchmarks.harness import Bound, Series, in_fresh_process, write
from llmlab import models

NUM_TRACED_STEPS = 48
_CPU, _GPU = SCALES["cpu"], SCALES["smollm2"]
TORCH_SCALES = {
    "cpu": replace(_CPU, batch_sizes=(16,), bound=0.6),
    "smollm2": replace(_GPU, batch_sizes=(64, 256), bound=0.5),
}
# What measure_tracing() finds: its name, unit, and upper bound.
TRACED = {
    "tracing": ("a decode step with tracing, longer than one without by", "%", 1.0),
    "records": ("records and deltas, by the clock", "% of a traced step", None),
    "growth": ("growth of the KV cache", "bytes", 0.0),
}
VLLM, OURS, ONE_BY_ONE = "vLLM as shipped", "llmlab torch", "transformers, one by one"


def through_handle(scale: Scale) -> Serve:
    """What a notebook has: EngineHandle, host process, messages, trace."""
    import llmlab

    arguments = scale.arguments
    engine = llmlab.load(
        MODEL, engine="torch", dtype=arguments["dtype"], seqs=arguments["max_num_seqs"],
        step_tokens=arguments["max_num_batched_tokens"], ctx=arguments["max_model_len"],
        kv_tokens=arguments["max_num_seqs"] * arguments["max_model_len"],
        options={"threads": int(os.environ.get("OMP_NUM_THREADS", "1"))},
    )  # fmt: skip

    def serve(asked: list[list[int]], num_tokens: int) -> int:
        run = engine.batch(asked, temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        return sum(result.num_output_tokens for result in run.wait())

    return serve


def one_by_one(scale: Scale) -> Serve:
    """transformers `generate`, one request after the other."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, scale.arguments["dtype"])
    model = AutoModelForCausalLM.from_pretrained(models.get(MODEL).hf_dir, dtype=dtype).eval()

    def serve(asked: list[list[int]], num_tokens: int) -> int:
        for token_ids in asked:
            inputs = torch.tensor([token_ids])
            with torch.inference_mode():
                out = model.generate(
                    inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=num_tokens,
                    min_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0,
                )  # fmt: skip
            assert out.shape[1] == len(token_ids) + num_tokens
        return len(asked) * num_tokens

    return serve


PEERS: dict[str, Callable[[Scale], Serve]] = {
    VLLM: lambda scale: as_shipped(scale, scale.options),
    OURS: through_handle,
    ONE_BY_ONE: one_by_one,
}


def measure_tracing(scale: Scale, rounds: int) -> dict[str, list[float]]:
    """The engine without host, traced and untraced decode steps by turns. For each batch size and round: how much
    longer a step is with tracing than its neighbour without, the median, in %; the share of a traced step that deltas,
    records and roofline points take, by the clock, in %; and the growth of the KV cache, in bytes.
    """
    from llmlab.engines.base import EngineConfig
    from llmlab.engines.torch_paged import TorchEngine
    from llmlab.trace import Request

    arguments = scale.arguments
    engine = TorchEngine(
        EngineConfig(
            "torch", MODEL, str(models.get(MODEL).hf_dir), dtype=arguments["dtype"],
            max_num_seqs=arguments["max_num_seqs"], token_budget=arguments["max_num_batched_tokens"],
            max_model_len=arguments["max_model_len"],
            kv_tokens=arguments["max_num_seqs"] * arguments["max_model_len"],
            options={"threads": int(os.environ.get("OMP_NUM_THREADS", "1"))},
        )
    )  # fmt: skip
    tracing = Tracing(engine)
    found: dict[str, list[float]] = {}
    sampling = {"temperature": 0.0, "max_tokens": NUM_TRACED_STEPS, "ignore_eos": True}
    for turn in range(rounds + 1):
        for number in scale.batch_sizes:
            before = engine.memory_bytes()["kv_cache"]
            for i, ids in enumerate(prompts(number, scale, 100 + turn)):
                name = f"r{turn}-{number}-{i}"
                engine.add_request(
                    Request(request_id=name, arrival_s=0.0, prompt_token_ids=tuple(ids), sampling=sampling)
                )
            traced_s, untraced_s, own_s = tracing.alternate(number)
            if turn:  # the first turn warms up
                ratios = [traced / bare for traced, bare in zip(traced_s, untraced_s, strict=False)]  # of neighbours
                longer = 100 * (statistics.median(ratios) - 1)
                found.setdefault(f"{number} tracing", []).append(longer)
                found.setdefault(f"{number} records", []).append(100 * sum(own_s) / sum(traced_s))
                found.setdefault(f"{number} growth", []).append(engine.memory_bytes()["kv_cache"] - before)
    return found


class Tracing:
    """What a step does for its record, timed, or left out."""

    def __init__(self, engine: Any) -> None:
        from llmlab.engines import stepping
        from llmlab.scheduling.plan import StepPlan
        from llmlab.trace import Step

        self._engine, self._is_on, self._own_s = engine, True, 0.0
        self._has_phases = engine.model.phases._on
        self._delta = engine._watcher.delta
        engine._watcher.delta = self._timed(self._delta, None)
        engine._extra = self._timed(engine._extra, {})
        StepPlan.records = self._timed(StepPlan.records, ())  # type: ignore[method-assign]
        stepping.Step = self._timed(Step, None)  # type: ignore[misc, assignment]

    def alternate(self, number: int) -> tuple[list[float], list[float], list[float]]:
        """Seconds of the traced and of the untraced steps in which all `number` requests decode, and of what the traced
        ones spend on their records. Returns when no request is left.
        """
        engine, running = self._engine, self._engine.scheduler.running
        traced_s: list[float] = []
        untraced_s: list[float] = []
        own_s: list[float] = []
        while engine.has_unfinished_requests():
            is_decode = len(running) == number and all(seq.num_output_tokens for seq in running.values())
            self._is_on = not self._is_on
            engine.model.phases._on = self._is_on and self._has_phases
            self._own_s, started = 0.0, time.perf_counter()
            engine.step()
            took_s = time.perf_counter() - started
            if not self._is_on:
                self._delta(running)  # what has changed is not left to the next step
            elif is_decode:
                own_s.append(self._own_s)
            if is_decode:
                (traced_s if self._is_on else untraced_s).append(took_s)
        return traced_s, untraced_s, own_s

    def _timed(self, function: Callable[..., Any], left_out: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_on:
                return left_out
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._own_s += time.perf_counter() - started

        return call


def compared(scale_name: str, rounds: int) -> tuple[list[Series], list[Bound]]:
    scale = TORCH_SCALES[scale_name]
    peers = [VLLM, OURS] + ([ONE_BY_ONE] if scale_name == "cpu" else [])
    series = in_turns(__file__, scale, {peer: _arguments(peer, scale_name) for peer in peers}, rounds)
    bounds = []
    for number in scale.batch_sizes:
        ours, where = series[OURS, number], f"{scale.label}, {number} requests: llmlab torch against"
        bounds.append(Bound(f"{where} vLLM as shipped", paired(ours, series[VLLM, number]), scale.bound))
        if ONE_BY_ONE in peers:
            bounds.append(Bound(f"{where} transformers", paired(ours, series[ONE_BY_ONE, number]), 3.0))
    traced: Any = in_fresh_process(__file__, "--rounds", str(rounds), *_arguments("tracing", scale_name))
    more, more_bounds = tracing_figures(scale, scale_name, traced)
    return [*series.values(), *more], [*bounds, *more_bounds]


def tracing_figures(scale: Scale, scale_name: str, traced: dict[str, list[float]]) -> tuple[list[Series], list[Bound]]:
    series, bounds = [], []
    for name, values in traced.items():
        number, what = name.split()
        words, unit, most = TRACED[what]
        title = f"{scale.label}, {number} requests: {words}"
        series.append(Series(title, unit, values))
        # On a GPU the issue asks for tracing to be on, not for a bound of its cost.
        if most is not None and (what == "growth" or scale_name == "cpu"):
            bounds.append(Bound(title, series[-1].median, most, at_least=False))
    return series, bounds


def _arguments(peer: str, scale_name: str) -> list[str]:
    return ["--peer", peer, *(["--gpu", scale_name] if scale_name != "cpu" else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", choices=[name for name in TORCH_SCALES if name != "cpu"])
    parser.add_argument("--rounds", type=int, default=8, help="measurements of each peer")
    parser.add_argument("--tracing", action="store_true", help="only what tracing costs")
    parser.add_argument("--peer", choices=[*PEERS, "tracing"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    scale_name = arguments.gpu or "cpu"
    scale = TORCH_SCALES[scale_name]
    set_environment(scale_name)
    if arguments.tracing:
        print(*itertools.chain(*tracing_figures(scale, scale_name, measure_tracing(scale, arguments.rounds))), sep="\n")
    elif arguments.peer == "tracing":
        print(json.dumps(measure_tracing(scale, arguments.rounds)))
    elif arguments.peer:
        # As long as it will be for ours: it records its CUDA graphs then.
        warm_up_tokens = scale.num_output_tokens if arguments.peer == OURS else WARM_UP_TOKENS
        answer_as(PEERS[arguments.peer](scale), scale, warm_up_tokens=warm_up_tokens)
    else:
        title = "Our torch engine against vLLM" + (" and transformers" if scale_name == "cpu" else "")
        name = "torch_cpu" if scale_name == "cpu" else f"torch_gpu_{scale_name}"
        write(name, title, *compared(scale_name, arguments.rounds))


if __name__ == "__main__":
    main()
