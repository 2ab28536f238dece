"""What prefix sharing saves: 8 requests with 300 shared tokens, with it and without it.

    python -m benchmarks.bench_prefix_sharing

An earlier request has computed the shared tokens, as the first user of a system prompt does; the 8 come at once.
"""

from __future__ import annotations

from benchmarks.harness import Bound, Series, write
from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.trace import Request

NUM_SHARED, NUM_REQUESTS, ROUNDS = 300, 8, 7
TEXT = "You answer questions about rivers, mountains and the sea, briefly and with care. " * 30


def prefill_s(engine: LlamaCppEngine, names: range) -> tuple[float, int]:
    """Seconds of forward passes until the prompts of these requests are computed, and the tokens computed in them."""
    shared = engine.tokenize(TEXT)[:NUM_SHARED]
    for i in names:
        ids = (*shared, *engine.tokenize(f" Question number {i}: why is that so?"))
        sampling = {"temperature": 0.0, "max_tokens": 1}
        engine.add_request(Request(request_id=f"r{i}", arrival_s=0.0, prompt_token_ids=ids, sampling=sampling))
    seconds, num_tokens = 0.0, 0
    while engine.has_unfinished_requests():
        step = engine.step()
        seconds += step.forward_s or 0.0
        num_tokens += step.num_scheduled_tokens
    return seconds, num_tokens


def main() -> None:
    path = str(models.get("smollm2-135m").gguf("F16"))
    names = {True: "sharing on", False: "sharing off"}
    first = {on: Series(f"the first request, {names[on]}", "s") for on in names}
    later = {on: Series(f"the 8 requests after it, {names[on]}", "s") for on in names}
    tokens = {on: Series(f"tokens computed for the 8, {names[on]}", "tokens") for on in names}
    for _ in range(ROUNDS):
        for on in names:
            options = {"threads": 2, "prefix_caching": on}
            engine = LlamaCppEngine(EngineConfig("llamacpp", "smollm2-135m", path, quant="F16", options=options))
            engine.self_test()  # the weights are in memory now
            first[on].values.append(prefill_s(engine, range(1))[0])
            seconds, num_tokens = prefill_s(engine, range(1, NUM_REQUESTS + 1))
            later[on].values.append(seconds)
            tokens[on].values.append(num_tokens)
            engine.close()
    bound = Bound("prefill time of the 8 requests, off against on", later[False].median / later[True].median, 8.0)
    all_nine = (first[False].median + later[False].median) / (first[True].median + later[True].median)
    note = f"With the first request counted in, which computes the shared tokens once, the ratio is {all_nine:.2f}."
    series = [*first.values(), *later.values(), *tokens.values()]
    write("prefix_sharing", "Prefix sharing on llama.cpp (F16, 2 threads)", series, [bound], [note])


if __name__ == "__main__":
    main()
