"""A `vllm serve` with two workers, in one node or in two: connected by `%llm connect --trace`, and seen from inside."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell
from serve_support import wait_until

from llmlab import models
from llmlab.engines.packages import missing
from llmlab.engines.trace_listener import TOKEN
from llmlab.engines.vllm_scheduler import ADDRESS
from llmlab.remote import TracedHandle
from tests.engines.vllm_serving import ON_CPU, running, served
from tests.local_servers import free_port

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]  # each worker takes half a minute to start
SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "ray" / "two_nodes.py"
SECRET = "a-token-of-this-test"
COUNTING = "One, two, three, four, five, six, seven, eight. " * 4
# Two workers share a layer: SmolLM2 has 9 heads and 3 KV heads, this has 12 and 4, and random weights.
SHAPE = json.dumps({"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64})
FLAGS = "--dtype float32 --enforce-eager --block-size 32 --max-model-len 256 --num-gpu-blocks-override 33".split()
FLAGS += f"--max-num-seqs 4 --kv-cache-memory-bytes {2**28} --served-model-name smol --load-format dummy".split()
FLAGS += ["--hf-overrides", SHAPE, "--scheduler-cls", "llmlab.engines.vllm_scheduler.TracedScheduler"]
PIPELINE = "--pipeline-parallel-size 2 --worker-cls llmlab.engines.vllm_cpu_workers.StageWorker".split()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    if (lack := missing("vllm")) is not None:
        pytest.skip(lack)
    monkeypatch.setenv(TOKEN, SECRET)


def wait_for_words(started: subprocess.Popen[bytes], log: Path) -> list[str]:
    """The lines that it prints when the server answers."""
    assert wait_until(lambda: "log: " in log.read_text() or started.poll() is not None, 500), log.read_text()
    lines = log.read_text().splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith("http")), None)
    assert begin is not None, log.read_text()
    return lines[begin:]


def workers_below(above: psutil.Process) -> list[str]:
    """What they call themselves."""
    names = [" ".join(one.cmdline()).strip() for one in above.children(recursive=True)]
    return sorted(name for name in names if name.startswith(("VLLM::Worker", "ray::CpuRayWorker")))


def answers_and_is_seen(shell: InteractiveShell, url: str, address: str) -> None:
    far = shell.run_line_magic("llm", f"connect {url} --trace {address} --as far")
    assert isinstance(far, TracedHandle) and far.is_seen
    run = far.batch([COUNTING, COUNTING + "And so on", "a, b, c,"], raw=True, max_tokens=12, ignore_eos=True)
    answers = run.wait()
    trace = run.trace
    assert trace.validate() == []
    assert trace.header.device == "2 x cpu" and trace.header.num_blocks == 32
    for answer in answers:
        told = [token for step in trace.step_records for token in step.tokens if token.request_id == answer.request_id]
        assert [token.token_id for token in told] == list(answer.token_ids) and len(told) == 12
    # the blocks that both prompts begin with are shared, and all are given back
    assert sum(step.prefix_hits.get(answers[1].request_id, 0) for step in trace.step_records) == 64
    last = trace.step_records[-1].kv
    assert last is not None and last.num_free == 32
    story = run.view.story
    assert story is not None and story.head["kind"] == "blocks"


@pytest.mark.parametrize(
    ("way", "names"),
    [
        (["--tensor-parallel-size", "2"], ["VLLM::Worker_TP0", "VLLM::Worker_TP1"]),
        (PIPELINE, ["VLLM::Worker_PP0", "VLLM::Worker_PP1"]),
    ],
    ids=["tensor parallel", "pipeline"],
)
def test_two_workers_on_one_node(shell: InteractiveShell, tmp_path: Path, way: Sequence[str], names: Sequence[str]):
    trace, model = f"http://127.0.0.1:{free_port()}", models.get("smollm2-135m").hf_dir
    flags = [*FLAGS, *way]
    with served(model, tmp_path / "log", flags, environment={**ON_CPU, ADDRESS: trace}, start_s=500) as url:
        assert workers_below(psutil.Process()) == names
        answers_and_is_seen(shell, url, trace)
    assert "llmlab: error" not in (tmp_path / "log").read_text()


def test_two_nodes_without_ray(shell: InteractiveShell, tmp_path: Path):
    """`--nnodes 2` on one machine: each node has a worker, and they exchange over the network."""
    trace, model = f"http://127.0.0.1:{free_port()}", models.get("smollm2-135m").hf_dir
    flags = [*FLAGS, "--tensor-parallel-size", "2", "--nnodes", "2", "--master-port", str(free_port())]
    command = [sys.executable, "-m", "llmlab.engines.vllm_command", "serve", str(model), *flags]
    command += ["--node-rank", "1", "--headless"]
    settings = {**ON_CPU, ADDRESS: trace, "VLLM_HOST_IP": "127.0.0.1", "VLLM_LOGGING_LEVEL": "INFO"}
    with (
        running(command, tmp_path / "second", settings) as second,
        served(model, tmp_path / "first", flags, environment=settings, start_s=500) as url,
    ):
        assert workers_below(psutil.Process(second.pid)) == ["VLLM::Worker_TP1"]
        assert workers_below(psutil.Process()) == ["VLLM::Worker_TP0", "VLLM::Worker_TP1"]
        answers_and_is_seen(shell, url, trace)
    assert "SHM communicator disabled" in (tmp_path / "first").read_text()


def test_two_nodes_of_ray(shell: InteractiveShell, tmp_path: Path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here: pip install 'llmlab-kit[ray]'.")
    trace = f"http://127.0.0.1:{free_port()}"
    flags = ["--port", str(free_port()), "--trace", trace]
    flags += "--max-model-len 256 --max-num-seqs 4 --num-gpu-blocks-override 33 --served-model-name smol".split()
    with running([sys.executable, str(SCRIPT), *flags], tmp_path / "log", {}) as script:
        said = wait_for_words(script, tmp_path / "log")
        everybody = psutil.Process(script.pid).children(recursive=True)
        nodes = [one for one in everybody if one.name() == "raylet"]
        assert [workers_below(node) for node in nodes] == [["ray::CpuRayWorker.run"]] * 2
        assert [line.startswith(f"node {i}: raylet {nodes[i].pid}, worker ") for i, line in enumerate(said[1:3])] == [
            1,
            1,
        ]
        answers_and_is_seen(shell, said[0], trace)
        [gcs] = [word.partition("=")[2] for word in nodes[0].cmdline() if word.startswith("--gcs-address=")]
        status = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", gcs]
        refused = subprocess.run(status, capture_output=True, text=True, timeout=120)
        assert refused.returncode != 0 and "token" in refused.stdout + refused.stderr, refused
    assert not psutil.wait_procs(everybody, timeout=30)[1]
