"""Record real traces of vLLM into datasets/traces/, for everybody who has no GPU.

    python -m benchmarks.record_traces [--out FOLDER]

SmolLM2-135M-Instruct, greedy, all blocks traced. Each workload gets an engine of its own and a file of at most 1 MB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llmlab

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


def record(name: str, workload: Workload, folder: Path) -> str:
    """Run a workload and keep its trace; a line that says what is in it."""
    options = {"trace": "full", "enforce_eager": True}
    engine = llmlab.load("smollm2-135m", engine="vllm", ctx=2048, block_size=16, options=options, **workload.load)
    try:
        run = engine.batch(workload.prompts(), temperature=0.0, **workload.sampling)
        run.wait()
        trace = run.trace
    finally:
        engine.unload()
    assert not trace.validate(), trace.validate()[:3]
    path = folder / f"{name}.jsonl.gz"
    trace.save(path)
    size = path.stat().st_size
    assert size <= MAX_BYTES, f"{path} has {size} bytes"
    steps = trace.steps
    return f"{path.name}: {len(trace.requests)} requests, {len(steps)} steps, {size / 1000:.0f} kB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "datasets" / "traces")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, workload in WORKLOADS.items():
        print(record(name, workload, folder), flush=True)


if __name__ == "__main__":
    main()
