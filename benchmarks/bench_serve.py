"""What the server costs: 16 streams over HTTP against the same 16 prompts on the bare handle, and the first token.

    python -m benchmarks.bench_serve

One process holds the engine, as a notebook does, and serves it; this one is the client, with plain sockets. Handle and
server take turns on the same engine, and no prompt comes twice: a kept prefix would be found again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from benchmarks.bench_llamacpp_throughput import NUM_THREADS, NUM_TOKENS, gguf
from benchmarks.harness import Bound, Series, write
from benchmarks.worker import Worker, answer_questions

NUM_STREAMS, NUM_FIRST_TOKENS = 16, 8
MAX_LOST_SHARE, MAX_ADDED_MS = 0.05, 8.0


def prompts_of(turn: str) -> list[str]:
    """No two turns begin alike."""
    return [f"{turn}, question {i}: what makes the number {i * 7 + 3} interesting? Answer:" for i in range(NUM_STREAMS)]


# ---- the process with the engine


def notebook(quant: str) -> None:
    """Loads, serves, and answers: where the server is; what the handle alone does with these prompts."""
    import llmlab

    engine = llmlab.load("smollm2-135m", engine="llamacpp", quant=quant, options={"threads": NUM_THREADS})
    server = llmlab.serve(engine)

    def answer(question: dict[str, Any]) -> Any:
        match question["ask"]:
            case "where":
                return {"port": server.port, "token": server.token}
            case "batch":
                started = time.perf_counter()
                run = engine.batch(question["prompts"], **OF_HANDLE)
                run.wait()
                return sum(r.num_output_tokens for r in run.results) / (time.perf_counter() - started)
            case "first":
                stream = engine.stream(question["prompts"][0], **OF_HANDLE)
                next(stream)
                ttft_s = stream.result.ttft_s
                stream.close()
                return ttft_s
            case "idle":
                while engine.num_open_requests:
                    time.sleep(0.01)
                return server.num_open

    answer_questions(answer)
    server.stop()
    engine.unload()


OF_HANDLE: dict[str, Any] = {"raw": True, "temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
OF_CLIENT: dict[str, Any] = {
    "temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True, "stream": True,
    "stream_options": {"include_usage": True},
}  # fmt: skip


# ---- the client


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """HTTP by hand over connections that are open already: a client library would cost more than the server does."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._head = port, f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"

    async def connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def stream(self, connection: Connection, prompt: str, **fields: Any) -> tuple[float, int]:
        """Seconds until the first token, and how many came."""
        reader, writer = connection
        body = json.dumps({"prompt": prompt, **OF_CLIENT, **fields}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        ttft_s, num_tokens = None, 0
        async for line in reader:
            if line.startswith(b"data: {"):
                ttft_s = ttft_s or time.perf_counter() - started
                if b'"completion_tokens"' in line:
                    num_tokens = json.loads(line[6:])["usage"]["completion_tokens"]
            elif line == b"0\r\n":  # the last chunk of the body
                break
        writer.close()
        assert ttft_s is not None
        return ttft_s, num_tokens

    async def rate(self, prompts: list[str]) -> float:
        """Tokens per second of all these streams together."""
        connections = [await self.connect() for _ in prompts]
        started = time.perf_counter()
        counts = await asyncio.gather(*(self.stream(*pair) for pair in zip(connections, prompts, strict=True)))
        return sum(num_tokens for _, num_tokens in counts) / (time.perf_counter() - started)


async def measure(quant: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Tokens per second of 16, and seconds to the first token of one: {"handle": [...], "server": [...]} each."""
    worker = Worker(__file__, "--notebook", "--quant", quant)
    where = worker.ask({"ask": "where"})
    client = Client(where["port"], where["token"])
    rates: dict[str, list[float]] = {"handle": [], "server": []}
    firsts: dict[str, list[float]] = {"handle": [], "server": []}
    for turn in range(-1, rounds):
        for peer in ("handle", "server")[:: -1 if turn % 2 else 1]:
            prompts = prompts_of(f"Turn {turn} {peer}")
            by_handle = peer == "handle"
            rate = worker.ask({"ask": "batch", "prompts": prompts}) if by_handle else await client.rate(prompts)
            rates[peer].append(rate)
        for number in range(NUM_FIRST_TOKENS):
            for peer in ("handle", "server")[:: -1 if number % 2 else 1]:
                prompt = f"First {turn}.{number} {peer}: why is the sky blue on a clear day? The sky is blue because"
                if peer == "handle":
                    firsts[peer].append(worker.ask({"ask": "first", "prompts": [prompt]}))
                else:
                    firsts[peer].append((await client.stream(await client.connect(), prompt, max_tokens=2))[0])
        assert worker.ask({"ask": "idle"}) == 0
    worker.close()
    warm_ups = 1, NUM_FIRST_TOKENS
    return ({p: values[warm_ups[0] :] for p, values in rates.items()}, {p: v[warm_ups[1] :] for p, v in firsts.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quant", default="Q4_1")
    parser.add_argument("--notebook", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.notebook:
        notebook(arguments.quant)
        return
    gguf(arguments.quant)
    rates, firsts = asyncio.run(measure(arguments.quant, arguments.rounds))
    lost = 1 - statistics.median(s / h for s, h in zip(rates["server"], rates["handle"], strict=True))
    added_ms = 1e3 * (statistics.median(firsts["server"]) - statistics.median(firsts["handle"]))
    series = [
        *(Series(f"{NUM_STREAMS} streams: {peer}", "tok/s", values) for peer, values in rates.items()),
        *(Series(f"first token: {peer}", "ms", [1e3 * value for value in values]) for peer, values in firsts.items()),
    ]
    bounds = [
        Bound(f"{NUM_STREAMS} streams: share of the throughput lost", lost, MAX_LOST_SHARE, at_least=False),
        Bound("first token: added to the median, ms", added_ms, MAX_ADDED_MS, at_least=False),
    ]
    write("serve", f"What the server costs (llama.cpp {arguments.quant}, {NUM_THREADS} threads)", series, bounds)


if __name__ == "__main__":
    main()
