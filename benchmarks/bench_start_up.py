"""How long one waits: import, %load_ext, load from the cache to the first token.

python -m benchmarks.bench_start_up
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.harness import Bound, Series, in_fresh_process, write

ROUNDS = 9


def import_s() -> float:
    started = time.perf_counter()
    import llmlab  # noqa: F401

    return time.perf_counter() - started


def load_ext_s() -> float:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    started = time.perf_counter()
    shell.run_line_magic("load_ext", "llmlab")
    return time.perf_counter() - started


def first_token_s(quant: str = "Q4_1") -> float:
    """From the call of load() to the first token in the notebook, with llmlab imported and the GGUF made."""
    import llmlab

    llmlab.load  # noqa: B018  resolves the lazy name
    started = time.perf_counter()
    engine = llmlab.load("smollm2-135m", engine="llamacpp", quant=quant)
    next(iter(engine.stream("Hello!", max_tokens=4)))
    seconds = time.perf_counter() - started
    engine.unload()
    return seconds


FIGURES = {"import llmlab": import_s, "%load_ext llmlab": load_ext_s, "load Q4_1 to first token": first_token_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", choices=FIGURES)
    arguments = parser.parse_args()
    if arguments.figure:
        print(json.dumps({"s": FIGURES[arguments.figure]()}))
        return
    series = {name: Series(name, "s") for name in FIGURES}
    for _ in range(ROUNDS):
        for name in FIGURES:
            series[name].values.append(in_fresh_process(__file__, "--figure", name)["s"])
    limits = {"import llmlab": 0.05, "%load_ext llmlab": 0.02, "load Q4_1 to first token": 1.5}
    bounds = [Bound(f"{name}, s", series[name].median, limit, at_least=False) for name, limit in limits.items()]
    write("start_up", "Start-up times", list(series.values()), bounds)


if __name__ == "__main__":
    main()
