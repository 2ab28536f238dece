"""What a gateway costs: the first token and 16 streams through it, against the same server asked directly; a kill.

    python -m benchmarks.bench_gateway [--litellm PYTHON]

The backends have no engine: they write as fast as they can. Direct and through the gateway take turns. `--litellm`: a
Python with litellm, whose Router is then measured over the same backends (in its own process, without a server in
front: what our gateway does over HTTP, it does as a function call).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import Bound, Series, write

NUM_STREAMS, NUM_PIECES, NUM_FIRST, NUM_RUNNING = 16, 200, 8, 20
MAX_ADDED_MS, MAX_MOVE_S = 8.0, 2.0
TOKEN = "token-of-the-bench"
CONFIG = """
backends:
  main: {{url: 'http://127.0.0.1:{main}', price: {{prompt: 1, output: 1}}}}
  spare: {{url: 'http://127.0.0.1:{spare}'}}
models:
  chat: {{backends: {{main: m, spare: m}}}}
keys:
  bench: {{token_env: BENCH_TOKEN}}
"""
BODY: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}


class Process:
    """A process whose output tells where it listens."""

    def __init__(self, *command: str, pattern: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.port = next(int(m[1]) for line in self._process.stdout if (m := re.search(pattern, line)))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def backend(name: str) -> Process:
    return Process("-m", "benchmarks.scripted_backend", name, pattern=r"^(\d+)$")


async def pieces(session: aiohttp.ClientSession, port: int, **fields: int) -> tuple[float | None, int, str]:
    """Seconds to the first text, how many came, and what it ended with."""
    started, ttft_s, count, end = time.perf_counter(), None, 0, "nothing"
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Authorization": f"Bearer {TOKEN}"}
    async with session.post(url, json={**BODY, **fields}, headers=headers) as response:
        async for line in response.content:
            if b'"word ' in line:
                ttft_s = ttft_s or time.perf_counter() - started
                count += 1
            elif b'"error"' in line:
                end = json.loads(line[6:])["error"]["code"]
            elif b"[DONE]" in line and end == "nothing":
                end = "end"
    return ttft_s, count, end


async def measure(ports: dict[str, int], main_pid: int, rounds: int) -> tuple[dict[str, list[float]], ...]:
    """First tokens in ms, pieces a second, seconds until a new request was answered after the kill."""
    firsts: dict[str, list[float]] = {peer: [] for peer in ports}
    rates: dict[str, list[float]] = {peer: [] for peer in ports}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for turn in range(-1, rounds):
            for peer in list(ports)[:: -1 if turn % 2 else 1]:
                found = [(await pieces(session, ports[peer], max_tokens=2))[0] for _ in range(NUM_FIRST)]
                started = time.perf_counter()
                await asyncio.gather(*(pieces(session, ports[peer], max_tokens=NUM_PIECES) for _ in range(NUM_STREAMS)))
                if turn >= 0:
                    firsts[peer] += [1e3 * ttft_s for ttft_s in found if ttft_s is not None]
                    rates[peer].append(NUM_STREAMS * NUM_PIECES / (time.perf_counter() - started))
        running = [
            asyncio.create_task(pieces(session, ports["gateway"], max_tokens=500, seed=10)) for _ in range(NUM_RUNNING)
        ]
        await asyncio.sleep(1)
        os.kill(main_pid, signal.SIGKILL)
        killed = time.perf_counter()
        _, _, end = await pieces(session, ports["gateway"], max_tokens=2)
        moved_s = time.perf_counter() - killed
        assert end == "end"
        assert {end for _, _, end in await asyncio.gather(*running)} == {"backend_died"}
    return firsts, rates, {"gateway": [moved_s]}


def of_litellm(python: str, rounds: int) -> dict[str, Any]:
    main, spare = backend("main"), backend("spare")
    urls = [f"http://127.0.0.1:{one.port}" for one in (main, spare)]
    command = [python, "-m", "benchmarks.litellm_router", urls[0], str(main.pid), urls[1], str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    main.kill()
    spare.kill()
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--litellm", metavar="PYTHON", help="a Python that has litellm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backends = {name: backend(name) for name in ("main", "spare")}
        file = Path(folder) / "config.yaml"
        file.write_text(CONFIG.format(**{name: one.port for name, one in backends.items()}))
        door = Process(
            "-c", "from llmlab.cli import main; main()", "gateway", str(file), "--port", "0",
            pattern=r"http://127\S+:(\d+)/v1$", BENCH_TOKEN=TOKEN,
        )  # fmt: skip
        ports = {"direct": backends["main"].port, "gateway": door.port}
        firsts, rates, moved = asyncio.run(measure(ports, backends["main"].pid, arguments.rounds))
        for one in (door, *backends.values()):
            one.kill()
    series = [
        *(Series(f"first token: {peer}", "ms", values) for peer, values in firsts.items()),
        *(Series(f"{NUM_STREAMS} streams: {peer}", "pieces/s", values) for peer, values in rates.items()),
        Series("kill -9 under 20 streams: a new request was answered after", "s", moved["gateway"]),
    ]
    notes = []
    if arguments.litellm:
        found = of_litellm(arguments.litellm, arguments.rounds)
        series += [
            Series("first token: LiteLLM's Router", "ms", found["first_ms"]),
            Series(f"{NUM_STREAMS} streams: LiteLLM's Router", "pieces/s", found["rates"]),
            Series("kill -9 under 20 streams: LiteLLM's Router answered a new request after", "s", [found["moved_s"]]),
            Series("LiteLLM: import", "s", [found["import_s"]]),
            Series("LiteLLM: memory of its process", "MB", [found["rss_mb"]]),
        ]
        ends = sorted({end for _, end in found["running"]})
        notes.append(
            f"LiteLLM {found['version']}: the {len(found['running'])} running streams ended with {', '.join(ends)} "
            f"after {min(n for n, _ in found['running'])} to {max(n for n, _ in found['running'])} pieces."
        )
    added_ms = statistics.median(firsts["gateway"]) - statistics.median(firsts["direct"])
    bounds = [
        Bound("first token: added to the median, ms", added_ms, MAX_ADDED_MS, at_least=False),
        Bound("a new request after the kill, s", max(moved["gateway"]), MAX_MOVE_S, at_least=False),
    ]
    write("gateway", "What a gateway costs (backends without an engine)", series, bounds, notes)


if __name__ == "__main__":
    main()
