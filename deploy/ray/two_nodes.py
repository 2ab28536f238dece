"""Two nodes of a Ray cluster on this machine, and a vLLM server with a worker on each; until Ctrl-C.

    python deploy/ray/two_nodes.py [--model MODEL] [--port 8000] [--trace http://127.0.0.1:8100] [flags of vllm serve]

For a machine without GPUs (llmlab/engines/vllm_ray.py says why that needs help). The workers share each layer (tensor
parallel): their number must divide the heads of the model. Without a model it is SmolLM2-135M in a shape of which that
is true, with random weights. `--trace` is LLMLAB_TRACE. Every process that is started here ends with this one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from llmlab import models
from llmlab.engines.packages import missing
from llmlab.engines.vllm_ray import RESOURCE
from llmlab.engines.vllm_scheduler import ADDRESS

NUM_NODES = 2
HOST = "127.0.0.1"
START_S, END_S = 600.0, 30.0
# Twelve heads of 64 where SmolLM2 has nine, four KV heads where it has three.
RANDOM = ["--hf-overrides", '{"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64}']
RANDOM += ["--load-format", "dummy"]
# A node has one thing to give, a place for a worker. What else Ray would start is left out.
NODE = {
    "num_cpus": 0,
    "num_gpus": 0,
    "resources": {RESOURCE: 1},
    "object_store_memory": 100_000_000,
    "include_log_monitor": False,
}
HEAD = {"no_monitor": True, "include_dashboard": False}
# A node that is not told these waits 15 s for its agents to find some, and then dies: a busy machine takes longer.
PORTS = ("runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a worker has one thread: the nodes share the cores of this machine
    "GOMP_SPINCOUNT": "1000",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": HOST,
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray gives 30 s or 60 s for each of these.
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "120",
}
SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", HOST]
FLAGS = ["--tensor-parallel-size", str(NUM_NODES), "--enforce-eager", "--dtype", "float32"]
FLAGS += ["--distributed-executor-backend", "llmlab.engines.vllm_ray.CpuRayExecutor"]
FLAGS += ["--max-model-len", "1024", "--block-size", "32", "--kv-cache-memory-bytes", str(2**28)]
TRACED = ["--scheduler-cls", "llmlab.engines.vllm_scheduler.TracedScheduler"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@contextmanager
def cluster() -> Iterator[Any]:
    """NUM_NODES nodes of Ray, each a raylet with the processes of the node below it."""
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        for number in range(NUM_NODES):
            # Of its own, and not 127.0.0.1: that Ray takes for the address of this machine in its network.
            address = f"127.0.0.{2 + number}"
            ports = {name: free_port() for name in PORTS}
            nodes.add_node(**NODE, **ports, node_ip_address=address, **({} if number else HEAD))
        yield nodes
    finally:
        nodes.shutdown()


@contextmanager
def server(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ends this program with the end of the server's log when it does not come up."""
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"The server did not come up. The end of its log:\n{log.read_text()[-4000:]}")


def workers() -> list[str]:
    """A line for each node: its process, and those of the workers below it."""
    raylets = [one for one in psutil.Process().children() if one.name() == "raylet"]
    below = [[one for one in raylet.children(recursive=True) if "CpuRayWorker" in one.name()] for raylet in raylets]
    return [
        f"node {number}: raylet {raylet.pid}, worker {', '.join(str(one.pid) for one in found) or 'none'}"
        for number, (raylet, found) in enumerate(zip(raylets, below, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or what else vLLM takes")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--trace", help="where the trace goes: LLMLAB_TRACE of docs/tracing.md")
    arguments, flags = parser.parse_known_args()
    if lack := missing("vllm"):
        sys.exit(lack)
    if importlib.util.find_spec("ray") is None:
        sys.exit("Ray is not installed here: pip install 'llmlab-kit[ray]'.")
    # Ray listens on every address of the machine: who does not know this token is refused.
    os.environ.update({**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    model = [arguments.model]
    if arguments.model is None:
        small = models.get("smollm2-135m")
        model = [str(small.hf_dir), "--served-model-name", small.name, *RANDOM]
        os.environ["HF_HUB_OFFLINE"] = "1"
    command = [*SERVER, "--port", str(arguments.port), *FLAGS, "--model", *model, *flags]
    if arguments.trace is not None:
        os.environ[ADDRESS] = arguments.trace
        command += TRACED
    # Sockets of Ray lie in it, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        log = Path(name) / "server.log"
        os.environ["RAY_TMPDIR"] = name
        with cluster() as nodes:
            os.environ["RAY_ADDRESS"] = nodes.address
            # Ray's own way to end would wait half a minute for what the server keeps running.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            with server(command, log) as process:
                url = f"http://{HOST}:{arguments.port}"
                wait_for_answer(url, process, log)
                print(url, *workers(), f"log: {log}", sep="\n", flush=True)
                process.wait()
                sys.exit(f"The server has ended. The end of its log:\n{log.read_text()[-4000:]}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
