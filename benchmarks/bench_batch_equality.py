"""Does a batch change answers? 16 greedy requests at once, with preemptions, against each request alone.

python -m benchmarks.bench_batch_equality
"""

from __future__ import annotations

from benchmarks.bench_llamacpp_throughput import NUM_TOKENS, PROMPTS
from benchmarks.harness import Bound, Series, write
from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.trace import Request, Step


def answers(engine: LlamaCppEngine, prompts: list[str]) -> tuple[list[list[int]], list[Step]]:
    for i, prompt in enumerate(prompts):
        sampling = {"temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
        ids = tuple(engine.tokenize(prompt))
        engine.add_request(Request(request_id=f"r{i}", arrival_s=0.0, prompt_token_ids=ids, sampling=sampling))
    steps = []
    while engine.has_unfinished_requests():
        steps.append(engine.step())
    tokens = [t for step in steps for t in step.tokens]
    return [[t.token_id for t in tokens if t.request_id == f"r{i}"] for i in range(len(prompts))], steps


def main() -> None:
    series, bounds = [], []
    for quant in ("F32", "F16", "Q4_1"):
        path = str(models.get("smollm2-135m").gguf(quant))
        settings = {"quant": quant, "options": {"threads": 2}}
        tight = LlamaCppEngine(
            EngineConfig("llamacpp", "smollm2-135m", path, kv_tokens=512, token_budget=64, **settings)
        )
        together, steps = answers(tight, PROMPTS)
        tight.close()
        roomy = LlamaCppEngine(EngineConfig("llamacpp", "smollm2-135m", path, **settings))
        alone = [answers(roomy, [prompt])[0][0] for prompt in PROMPTS]
        roomy.close()
        equal = sum(a == b for a, b in zip(together, alone, strict=True))
        preempted = sum(len(step.preempted) for step in steps)
        series.append(Series(f"{quant}: equal answers of 16", "answers", [equal]))
        series.append(Series(f"{quant}: preemptions in 512 cells", "preemptions", [preempted]))
        if quant == "F32":
            bounds = [Bound("F32: equal answers of 16", equal, 16), Bound("F32: preemptions", preempted, 1)]
    note = "Quantized products also quantize activations: summing in another order flips roundings, so answers part."
    write("batch_equality", "Answers of a batch against answers alone (llama.cpp)", series, bounds, [note])


if __name__ == "__main__":
    main()
