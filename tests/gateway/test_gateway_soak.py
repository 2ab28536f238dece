"""Two real llama.cpp behind `llmlab serve`, processes of their own, and a real kill -9 under 20 streams."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_support import TOKENS, Door, text_of, wait_until
from test_failover import NUM_STREAMS, stream_on

from llmlab.gateway import gateway

pytestmark = pytest.mark.soak

KEY = secrets.token_urlsafe(16)
CONFIG = """
backends:
  main: {{url: {main}, api_key_env: SERVED_KEY, price: {{prompt: 1, output: 1}}}}
  spare: {{url: {spare}, api_key_env: SERVED_KEY}}
models:
  chat: {{backends: {{main: smol, spare: smol}}}}
keys:
  ann: {{token_env: ANN_TOKEN}}
"""
LONG = {"max_tokens": 150, "ignore_eos": True}


class Served:
    """`llmlab serve` of the embedded model."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-c", "from llmlab.cli import main; main()", "serve", "smollm2-135m"]
        command += ["-e", "llamacpp", "-q", "Q4_1", "--ctx", "512", "--seqs", "8", "--as", "smol"]
        command += ["--port", str(port), "--token-env", "SERVED_KEY"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SERVED_KEY": KEY}
        )
        assert self._process.stdout is not None
        shown = "".join(iter(self._process.stdout.readline, "Ctrl-C ends it.\n"))
        url = re.search(r"(http://127\S+:(\d+))/v1$", shown, re.MULTILINE)
        assert url is not None, shown
        self.url, self.port = url[1], int(url[2])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


@pytest.fixture
def served() -> Iterator[dict[str, Served]]:
    both: dict[str, Served] = {}
    try:
        for name in ("main", "spare"):
            both[name] = Served()
        yield both
    finally:
        for one in both.values():
            one.stop()


def test_a_killed_engine_loses_what_it_had_begun_to_say_and_nothing_else(served: dict[str, Served], tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(**{name: one.url for name, one in served.items()}))
    door = Door(gateway(file, environment={**TOKENS, "SERVED_KEY": KEY}))
    upstreams = door.server.upstreams
    try:
        assert door.chat("Name a fruit.", max_tokens=4).headers["x-llmlab-backend"] == "main"
        with ThreadPoolExecutor(NUM_STREAMS + 1) as pool:
            running = [pool.submit(stream_on, door, **LONG) for _ in range(NUM_STREAMS)]
            # eight have a seat and speak, the others wait
            assert wait_until(lambda: upstreams["main"].standing.figures.num_running == 8, 60)
            assert wait_until(lambda: upstreams["main"].num_open == NUM_STREAMS, 60)
            time.sleep(1)
            served["main"].kill()
            killed_s = time.monotonic()
            new = pool.submit(stream_on, door, max_tokens=4)
            assert wait_until(lambda: upstreams["spare"].num_open > NUM_STREAMS - 8 - 1, 10)
            took_s = time.monotonic() - killed_s
            answers = [one.result() for one in running]
            assert new.result()[-1] == "[DONE]"
        assert took_s < 2
        broken = [events for events in answers if "error" in events[-2]]
        assert 1 <= len(broken) <= 8 + 1
        for events in broken:
            assert events[-2]["error"]["code"] == "backend_died" and text_of(events[:-2])
        for events in (events for events in answers if events not in broken):
            assert events[-1] == "[DONE]" and events[-2]["choices"][0]["finish_reason"] == "length"
        moved = [entry for entry in door.entries if entry.attempts]
        assert len(moved) >= NUM_STREAMS - len(broken)
        assert {entry.backend for entry in moved} == {"spare"}
        served["main"] = Served(served["main"].port)
        assert wait_until(lambda: upstreams["main"].standing.why_down is None, 10)
        assert door.chat("Name a fruit.", max_tokens=4).headers["x-llmlab-backend"] == "main"
        assert door.server.failures == []
        assert KEY not in (tmp_path / "gateway.jsonl").read_text()
    finally:
        door.close()
