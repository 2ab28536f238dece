"""Whether the torch engine is right on this GPU, and where its steps spend their time: kernel, graphs and forks.

    python -m benchmarks.check_torch_gpu

Needs a CUDA device, no vLLM. In float32 all ways must give the same greedy tokens: attention by the Triton kernel or in
plain torch, decodes by CUDA graphs or not. In bfloat16 their tokens part sooner or later; how many agree is told. The
engine runs without host and handle.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.bench_vllm import SCALES, prompts
from benchmarks.harness import Bound, Series, write
from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.torch_attention import KERNEL_TOLERANCE
from llmlab.engines.torch_kernel import kernel_attention, trial
from llmlab.engines.torch_paged import TorchEngine
from llmlab.trace import Request, Step, Trace

MODEL, SCALE = "smollm2-135m", SCALES["smollm2"]
NUM_PROMPTS, NUM_TOKENS, NUM_ANSWERS = 24, 64, 4
_NAMES = itertools.count()


def engine(dtype: str, *, kv_tokens: int = 2**18, token_budget: int = 8192, **options: Any) -> TorchEngine:
    model = models.get(MODEL)
    config = EngineConfig(
        "torch", MODEL, str(model.hf_dir), dtype=dtype, max_num_seqs=256, max_model_len=1024, kv_tokens=kv_tokens,
        token_budget=token_budget, fingerprint=model.fingerprint, options={"device": "cuda", **options},
    )  # fmt: skip
    return TorchEngine(config)


def serve(
    on: TorchEngine, asked: Sequence[Sequence[int]], n: int = 1, **sampling: Any
) -> tuple[Trace, list[list[int]]]:
    """The trace, and `n` answers to each prompt, as long as asked for."""
    requests: list[Request] = []
    for token_ids in asked:
        parent_id = ""
        for _ in range(n):
            how = {"temperature": 0.0, "ignore_eos": True, "seed": len(requests), **sampling}
            name = f"r{next(_NAMES)}"
            requests.append(
                Request(
                    request_id=name, arrival_s=0.0, prompt_token_ids=tuple(token_ids), sampling=how, parent_id=parent_id
                )
            )
            parent_id = parent_id or name
    for request in requests:
        on.add_request(request)
    steps: list[Step] = []
    while on.has_unfinished_requests():
        step = on.step()
        steps.append(step if isinstance(step, Step) else step.record())
    answers: dict[str, list[int]] = {request.request_id: [] for request in requests}
    for step in steps:
        for token in step.tokens:
            answers[token.request_id].append(token.token_id)
    return Trace(on.header, tuple(requests), tuple(steps)), list(answers.values())


def agreement(a: list[list[int]], b: list[list[int]]) -> float:
    """The share of tokens before the first that differs, in % of all."""
    same = [
        next((i for i, (x, y) in enumerate(zip(s, t, strict=True)) if x != y), len(s))
        for s, t in zip(a, b, strict=True)
    ]
    return 100 * sum(same) / sum(map(len, a))


def kernel_is_right() -> Iterator[Bound]:
    config, device = models.get(MODEL).config, torch.device("cuda")
    for dtype, most in KERNEL_TOLERANCE.items():
        apart = trial(config, dtype, device)
        yield Bound(f"kernel against plain torch, {dtype}, largest difference", apart, most, at_least=False)


def ways_agree() -> Iterator[Bound]:
    """Chunks, preemptions and prefix hits, in all four ways."""
    asked = [ids[: 20 + 5 * i] for i, ids in enumerate(prompts(NUM_PROMPTS, SCALE, 1))]
    asked += [[*asked[-1][:64], *ids[:9]] for ids in asked[:4]]
    for dtype in ("float32", "bfloat16"):
        answers, least = {}, 100.0 if dtype == "float32" else 0.0
        for flash, graphs in itertools.product((True, False), repeat=2):
            on = engine(dtype, kv_tokens=2304, token_budget=256, flash_attn=flash, cuda_graphs=graphs)
            assert (on.model.attention is kernel_attention) == flash, "the kernel is not used: see the line above"
            trace, answers[flash, graphs] = serve(on, asked, max_tokens=NUM_TOKENS)
            label = f"{dtype}, {'kernel' if flash else 'plain torch'}, {'graphs' if graphs else 'no graphs'}"
            yield Bound(f"{label}: broken rules of the trace", len(trace.validate()), 0, at_least=False)
            if not (flash or graphs):
                num_preempted = sum(len(step.preempted) for step in trace.step_records)
                yield Bound(f"{label}: preemptions", num_preempted, 1)
            on.close()
        plain = answers[False, False]
        for (flash, graphs), found in answers.items():
            label = f"{dtype}: kernel {flash}, graphs {graphs}: tokens as in plain torch, in %"
            yield Bound(label, agreement(found, plain), least)


def forks_agree() -> Iterator[Bound]:
    asked = [ids[:30] for ids in prompts(8, SCALE, 2)]
    on, how = engine("float32"), {"max_tokens": 32, "temperature": 0.8}
    trace, forked = serve(on, asked, NUM_ANSWERS, **how)
    on.pool.clear()
    _, single = serve(on, [ids for ids in asked for _ in range(NUM_ANSWERS)], **how)
    on.close()
    steps = trace.step_records
    yield Bound(f"n = {NUM_ANSWERS}: tokens as of single requests, in %", agreement(forked, single), 100.0)
    yield Bound("n: forks", sum(len(step.forked) for step in steps), 8 * (NUM_ANSWERS - 1))
    yield Bound("n: blocks copied", sum(len(step.kv.copied) for step in steps), 8 * (NUM_ANSWERS - 1))
    yield Bound("n: broken rules of the trace", len(trace.validate()), 0, at_least=False)


def speed(rounds: int) -> list[Series]:
    """Tokens per second of the bare engine, and the parts of a decode step, in ms."""
    series: dict[str, Series] = {}
    for flash in (True, False):
        on, way = engine("bfloat16", flash_attn=flash), "kernel" if flash else "plain torch"
        for turn in range(rounds + 1):
            for number in (64, 256):
                asked = prompts(number, SCALE, 10 + turn)
                started = time.perf_counter()
                trace, answers = serve(on, asked, max_tokens=SCALE.num_output_tokens)
                took_s = time.perf_counter() - started
                if not turn:  # graphs are recorded
                    continue
                decodes = [s for s in trace.step_records if len(s.scheduled) == number == len(s.tokens)]
                values = {"tok/s": sum(map(len, answers)) / took_s}
                for part in ("schedule_s", "forward_s", "update_s"):
                    values[f"ms {part}"] = 1000 * statistics.median(getattr(step, part) for step in decodes)
                for what, value in values.items():
                    unit, _, part = what.partition(" ")
                    name = f"{number} requests, {way}: {part or 'throughput'}"
                    series.setdefault(name, Series(name, unit)).values.append(value)
        on.close()
    return list(series.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    bounds = []
    for check in (kernel_is_right, forks_agree, ways_agree):
        for bound in check():
            bounds.append(bound)
            print(bound, flush=True)  # a later check may fail
    write("torch_gpu_check", "The torch engine on a GPU: kernel, graphs, forks", speed(rounds), bounds)


if __name__ == "__main__":
    main()
