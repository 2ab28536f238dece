"""Record real traces of vLLM into datasets/traces/, for everybody who has no GPU, or only one.

    python -m benchmarks.record_traces [--out FOLDER]      # one GPU: SmolLM2-135M-Instruct
    python -m benchmarks.record_traces --workers tp1 tp2   # a machine with 2 GPUs: burst_of_64_tp1, burst_of_64_tp2
    python -m benchmarks.record_traces --workers tp1 tp4   # with 4
    python -m benchmarks.record_traces --workers tp1 tp2 pp2   # without one: burst_of_16_cpu_tp1, ...

Greedy, blocks traced. Each workload gets an engine of its own and a file of at most 1 MB. tp2: two workers share each
layer (tensor parallel); pp2: each has half of the layers (pipeline). SmolLM2 has 9 heads, which two workers cannot
share, so these have random weights in another shape, and answers as long as asked for. Each prints its row for
datasets/traces/README.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

import llmlab
from benchmarks.bench_vllm import SHAPE_8B
from llmlab.engines.vllm_arguments import is_cpu_build
from llmlab.trace import Trace

MAX_BYTES = 1_000_000
TOPICS = "rain ice glass bread salt wind sleep music maps ants clocks ships paper bees trains stars".split()
SYSTEM = (
    "You are the librarian of a small town. You answer in plain words, you never hurry, and you name a book for each "
    "question. The library opens at nine and closes at six; on Sundays it is closed. Children may borrow four books, "
    "adults ten, for three weeks. Who is late pays ten cents a day, and nobody has to pay more than the book is worth. "
)
LONG = "The committee met again and wrote down what had been said, which was not much, and then it rained. " * 60


@dataclass(frozen=True)
class Workload:
    """What is asked of which engine."""

    prompts: Callable[[], list[str]]
    load: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=lambda: {"enforce_eager": True})
    # What the trace calls the model, where it is not SmolLM2 itself.
    model: str | None = None
    # How often it is recorded; the fastest is kept: a machine that does other things as well only adds time.
    num_tries: int = 1


def questions(number: int) -> list[str]:
    forms = (
        "Why is {} useful?",
        "Tell me a short story about {}.",
        "Name three facts about {}.",
        "What is {} made of?",
    )
    return [forms[i // len(TOPICS) % len(forms)].format(TOPICS[i % len(TOPICS)]) for i in range(number)]


WORKLOADS = {
    # 64 requests at once, room for 32 at a time: waiting, prefill chunks beside decodes, a full batch that drains
    "burst_of_64": Workload(lambda: questions(64), dict(seqs=32, kv_tokens=8192, step_tokens=512), dict(max_tokens=48)),
    # one long system prompt before every question: its blocks are computed once and shared
    "shared_prefix": Workload(
        lambda: [SYSTEM + question for question in questions(24)],
        dict(seqs=8, kv_tokens=4096, step_tokens=512),
        dict(max_tokens=40),
    ),
    # long answers in a pool that cannot hold them all: preemption, and what it costs to compute again
    "preemption": Workload(
        lambda: questions(16), dict(seqs=16, kv_tokens=1024, step_tokens=256), dict(max_tokens=160, ignore_eos=True)
    ),
    # prompts of some 1,200 tokens under a budget of 256 a step, with short questions between them
    "chunked_prefill": Workload(
        lambda: [f"Meeting {i}. {LONG}{q}" if i % 3 == 0 else q for i, q in enumerate(questions(12))],
        dict(seqs=12, kv_tokens=16384, step_tokens=256),
        dict(max_tokens=40),
    ),
}


# Twelve heads of 64 where SmolLM2 has nine, four KV heads where it has three.
SHAPE_SMALL = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64}
# On each CPU worker; a block of 32 tokens takes 1.9 MB of it, or half of that where two workers share the layers.
CPU_KV_BYTES = 32 * 2**20


def on_workers(kind: str) -> tuple[str, Workload]:
    """A burst on several workers of this machine, and its name. `kind`: "tp2", "pp2", ...; "tp1" to compare with.

    vLLM itself finds out how many blocks there is room for: on a GPU in what the weights leave, on a CPU in
    CPU_KV_BYTES for each worker.
    """
    found = re.fullmatch(r"(tp|pp)(\d+)", kind)
    if found is None:
        raise SystemExit(f"Unknown workers {kind!r}. Give tp1, tp2, tp4, pp2, ...")
    way = {"tp": "tensor_parallel_size", "pp": "pipeline_parallel_size"}[found[1]]
    # Tries have the same prompts, and none may find what another has left.
    options: dict[str, Any] = {"load_format": "dummy", "prefix_caching": False, way: int(found[2])}
    if not is_cpu_build():
        options["hf_overrides"] = SHAPE_8B
        load = dict(dtype="bfloat16", seqs=32, step_tokens=512, ctx=2048, block_size=16)
        sampling = dict(max_tokens=48, ignore_eos=True)
        model = "Llama-3-8B-shaped, random weights"
        return f"burst_of_64_{kind}", Workload(lambda: questions(64), load, sampling, options, model, num_tries=3)
    # The bytes decide, not the number of blocks that our engine would ask for on a CPU.
    options |= {"hf_overrides": SHAPE_SMALL, "num_gpu_blocks_override": None, "kv_cache_memory_bytes": CPU_KV_BYTES}
    options |= {"threads": 1}
    load = dict(dtype="float32", seqs=16, step_tokens=128, ctx=256, block_size=32)
    sampling = dict(max_tokens=40, ignore_eos=True)
    model = "SmolLM2-shaped with 12 heads, random weights"
    return f"burst_of_16_cpu_{kind}", Workload(lambda: questions(16), load, sampling, options, model, num_tries=3)


def record(name: str, workload: Workload, folder: Path) -> str:
    """Run a workload and keep its trace; its row of the data sheet."""
    options = {"trace": "full", **workload.options}
    room = {"ctx": 2048, "block_size": 16, **workload.load}
    engine = llmlab.load("smollm2-135m", engine="vllm", options=options, **room)
    try:
        traces = [served(engine, workload) for _ in range(workload.num_tries)]
    finally:
        engine.unload()
    trace = min(traces, key=lambda one: one.step_records[-1].t_s - one.request_records[0].arrival_s)
    assert not trace.validate(), trace.validate()[:3]
    path = folder / f"{name}.jsonl.gz"
    trace.save(path)
    size = path.stat().st_size
    assert size <= MAX_BYTES, f"{path} has {size} bytes"
    rate = f"{trace.header.device}, {llmlab.metrics.throughput_tps(trace):.0f} tok/s, {size / 1000:.0f} kB"
    return f"| `{path.name}` | {rate} | {len(trace.requests)} | {len(trace.steps)} |"


def served(engine: Any, workload: Workload) -> Trace:
    """The trace of one run."""
    run = engine.batch(workload.prompts(), temperature=0.0, **workload.sampling)
    run.wait()
    trace: Trace = run.trace
    if workload.model is None:
        return trace
    header = replace(trace.header, model=workload.model, fingerprint=None)
    return Trace(header, trace.request_records, trace.step_records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "datasets" / "traces")
    parser.add_argument("--workers", nargs="+", metavar="tpN|ppN", help="several workers: how they share the model")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    workloads = dict(map(on_workers, arguments.workers)) if arguments.workers else WORKLOADS
    for name, workload in workloads.items():
        print(record(name, workload, arguments.out), flush=True)


if __name__ == "__main__":
    main()
