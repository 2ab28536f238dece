"""Somebody's own vLLM server with --scheduler-cls, traced from outside: over a socket and into a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from vllm_driver import VOCAB, Driver, tiny_model

from llmlab.engines.trace_stream import TraceReceiver, TraceSender
from llmlab.engines.vllm_scheduler import ADDRESS, LEVEL, Shipment
from llmlab.errors import EngineError
from llmlab.trace import Header, Step, Trace
from tests.engines.vllm_serving import ON_CPU, served

# ---- the stream alone


def opening() -> list[Header]:
    return [Header(engine="simulated")]


def step(number: int) -> Step:
    return Step(step=number, t_s=float(number))


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_nobody_takes_is_dropped_and_counted_and_the_next_trace_tells_how_many(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/trace"
    sender = TraceSender(address, opening)
    started = time.monotonic()
    for number in range(1000):
        sender.send([step(number)])
    assert time.monotonic() - started < 1 and sender.num_lost == 1000
    with TraceReceiver(address) as receiver:
        wait_for(sender.open)
        sender.send([step(1000)])
        assert receiver.wait(1, timeout_s=5)
        trace = receiver.trace()
        assert trace is not None and [s.step for s in trace.step_records] == [1000]
        assert receiver.num_lost_records == 1000
    sender.close()


def test_a_receiver_that_comes_back_gets_a_trace_of_its_own(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/trace"
    sender = TraceSender(address, opening)
    for number in range(2):
        with TraceReceiver(address) as receiver:
            wait_for(sender.open)
            wait_for(lambda receiver=receiver: receiver.trace() is not None or not sender.open())
            sender.send([step(number)])
            assert receiver.wait(1, timeout_s=5)
            trace = receiver.trace()
            assert trace is not None and [s.step for s in trace.step_records] == [number]
    sender.close()


def test_strange_messages_are_counted_and_harm_nothing(tmp_path: Path) -> None:
    import zmq

    address = f"ipc://{tmp_path}/trace"
    with TraceReceiver(address) as receiver, zmq.Context() as context, context.socket(zmq.PUSH) as other:
        other.connect(address)
        for message in (b"", b"S\xff", b"X123", b"Hnonsense", b"S"):
            other.send(message)
        wait_for(lambda: receiver.num_strange == 5)
        assert receiver.trace() is None and receiver.num_steps == 0


@pytest.mark.parametrize("address", ["ipc://", "nonsense://x", "/no/such/folder/trace.jsonl"])
def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    with pytest.raises(EngineError, match=re.escape(f"The trace cannot go to {address!r}")):
        TraceSender(address, opening)


def test_a_file_is_whole_after_each_record(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    sender = TraceSender(str(path), opening)
    sender.open()
    for number in range(3):
        sender.send([step(number)])
        assert len(Trace.load(path).step_records) == number + 1
    sender.close()
    with pytest.raises(EngineError, match="File exists"):
        TraceSender(str(path), opening)


# ---- the scheduler classes


def test_importing_the_scheduler_classes_imports_no_vllm() -> None:
    code = "import llmlab.engines.vllm_scheduler, sys; assert 'vllm' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_a_receiver_that_comes_late_gets_a_sound_trace_from_there_on(tmp_path: Path, max_in_flight: int) -> None:
    pytest.importorskip("vllm")
    driver = Driver(tiny_model(tmp_path / "model"), num_blocks=20, max_in_flight=max_in_flight)
    address = f"ipc://{tmp_path}/trace"
    shipment = Shipment(driver.scheduler, address, "full")
    shipment.tracer.attach()

    def turn() -> None:
        driver.turn()
        shipment.send()

    def add(name: str) -> None:
        driver.add(name, range(10, 30), 12)
        shipment.add_request(driver.scheduler.requests[name])

    for i in range(4):
        add(f"r{i}")
    for _ in range(6):
        turn()
    with TraceReceiver(address) as receiver:
        wait_for(shipment._sender.open)
        for i in range(4, 8):
            add(f"r{i}")
        while not driver.is_idle:
            turn()
        wait_for(lambda: len(_ended(receiver.trace())) == 8)
        trace = receiver.trace()
    assert trace is not None and trace.validate() == []
    assert receiver.num_lost_records > 0 and trace.header.kv_at_start is not None
    assert {request.request_id for request in trace.request_records} == {f"r{i}" for i in range(8)}
    assert all(0 < token.token_id < VOCAB for s in trace.step_records for token in s.tokens)
    shipment.close()


def _ended(trace: Trace | None) -> set[str]:
    return {name for s in trace.step_records for name in s.finished} if trace else set()


def server(model: Path, log: Path, **environment: str) -> AbstractContextManager[str]:
    """The address of vLLM's own server, with our scheduler in it."""
    flags = "--dtype float32 --enforce-eager --block-size 32 --max-model-len 256 --num-gpu-blocks-override 33".split()
    flags += ["--scheduler-cls", "llmlab.engines.vllm_scheduler.TracedScheduler", "--load-format", "dummy"]
    settings = {**ON_CPU, "VLLM_CPU_KVCACHE_SPACE": "1", **environment}
    return served(model, log, flags, environment=settings, start_s=240)


def complete(url: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "logprobs": 2}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    return dict(json.load(urllib.request.urlopen(request, timeout=120)))


@pytest.mark.soak  # 70 s, most of it in starting
@pytest.mark.timeout(400)
def test_a_server_of_ones_own_is_traced_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from llmlab import models

    address, log = f"ipc://{tmp_path}/trace", tmp_path / "server.log"
    with TraceReceiver(address) as receiver:
        with server(models.get("smollm2-135m").hf_dir, log, **{ADDRESS: address, LEVEL: "full"}) as url:
            answers = [complete(url, "One, two, three, " * 12, 6), complete(url, "One, two, three, " * 12, 4)]
            wait_for(lambda: len(_ended(receiver.trace())) == 2, 20)
        trace = receiver.trace()
    assert "error" not in " ".join(line for line in log.read_text().splitlines() if line.startswith("llmlab"))
    assert trace is not None and trace.validate() == []
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [6, 4]
    assert [request.sampling["max_tokens"] for request in trace.request_records] == [6, 4]
    tokens = [token for s in trace.step_records for token in s.tokens]
    assert len(tokens) == 10 and all(len(token.top) == 2 and token.text == "" for token in tokens)
    # The second prompt is the first once more: its blocks are found.
    assert [hit for s in trace.step_records for hit in s.prefix_hits.values()] == [64]
    assert trace.header.engine == "vllm" and trace.header.num_blocks == 32
