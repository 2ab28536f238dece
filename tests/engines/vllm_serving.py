"""vLLM's own server, in a process of its own, until the end of a `with`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.local_servers import free_port

END_S = 90
ON_CPU = {
    "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000", "TORCH_COMPILE_DISABLE": "1", "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
}  # fmt: skip


@contextmanager
def served(
    model: Path, log: Path, flags: Sequence[str], *, environment: Mapping[str, str], start_s: float
) -> Iterator[str]:
    """The address of a `vllm serve` of this model, once it answers; what it prints goes to `log`.

    Raises: RuntimeError with the end of its log when it does not answer within `start_s`.
    """
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *flags]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with running(command, log, environment) as process:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + start_s
        while process.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise RuntimeError(f"vllm serve did not start:\n{log.read_text()[-4000:]}")
        yield url


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its engine core too
            process.wait()
