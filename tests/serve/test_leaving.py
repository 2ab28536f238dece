"""Clients that go away, too many of them, and an engine that ends under them."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from serve_support import MakeServed, Served, error_of, events, wait_until

import llmlab
from llmlab.errors import EngineError
from llmlab.serve import servers

LONG = {"max_tokens": 200, "ignore_eos": True}


def begin(echo: Served, **fields: object) -> socket.socket:
    """A connection that has asked for an answer and does not read it."""
    body = httpx.Request("POST", echo.url, json={"prompt": "abc", **LONG, **fields}).content
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {echo.token}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", echo.server.port), timeout=10)
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_answer_on_the_engine(fake: MakeServed, stream: bool):
    echo = fake(step_s=0.02)
    with begin(echo, stream=stream, n=2):
        assert wait_until(lambda: echo.server.num_open == 2 and len(echo.handle.trace.step_records) > 3)
    assert wait_until(echo.is_idle)
    trace = echo.handle.trace
    assert [reason for step in trace.step_records for reason in step.finished.values()] == ["abort", "abort"]
    assert 'status="5' not in echo.http.get("/metrics").text
    assert sum(len(step.tokens) for step in trace.step_records) < 100


def test_a_client_that_does_not_read_does_not_hold_up_the_others(fake: MakeServed):
    echo = fake(step_s=0.01)
    with begin(echo, stream=True):
        assert echo.complete("xyz", max_tokens=5).json()["choices"][0]["text"] == "xyzxy"


def drop_at_random(echo: Served, count: int, seed: int) -> int:
    """Open and drop so many connections at random moments; how many were dropped when their answer had begun.

    A fifth is dropped before the request is whole, two fifths within half a second, two fifths after the first token:
    however slow the engine is, these have run.
    """
    rng, begun = random.Random(seed), list[bool]()

    def visit(kind: str, delay_s: float, stay_s: float, is_streamed: bool, is_rude: bool) -> None:
        time.sleep(delay_s)
        if kind == "half":
            connection = socket.create_connection(("127.0.0.1", echo.server.port), timeout=10)
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Le")
        else:
            connection = begin(echo, stream=is_streamed or kind == "begun")
        if kind == "begun":
            begun.append(_has_begun(connection))
        time.sleep(stay_s)
        if is_rude:  # RST instead of FIN
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.close()

    kinds = [("half", "any", "any", "begun", "begun")[number % 5] for number in range(count)]
    visits = [(kind, rng.random(), rng.random() * 0.5, rng.random() < 0.7, rng.random() < 0.5) for kind in kinds]
    threads = [threading.Thread(target=visit, args=args) for args in visits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(begun)


def _has_begun(connection: socket.socket) -> bool:
    """Wait for the first token; False when another answer came, such as 429."""
    came = b""
    connection.settimeout(120)
    while b"data: " not in came:
        if not (more := connection.recv(65536)):
            return False
        came += more
    return True


def test_20_connections_dropped_at_random_moments_leave_nothing_behind(fake: MakeServed):
    echo = fake(step_s=0.005, max_open=16, isolation="host")
    assert drop_at_random(echo, 20, seed=1) > 0
    assert wait_until(echo.is_idle)
    assert echo.handle.memory()["kv_used"] == 0
    assert echo.handle.trace.validate() == []
    assert echo.complete("abc", max_tokens=3).json()["choices"][0]["text"] == "abc"


def test_a_full_queue_answers_429_and_says_when_to_come_back(fake: MakeServed):
    echo = fake(step_s=0.02, max_open=2)
    with begin(echo, stream=True), begin(echo, stream=True):
        assert wait_until(lambda: echo.server.num_open == 2)
        response = echo.complete("abc", max_tokens=2)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert error_of(response)["code"] == "queue_full"
        assert echo.http.get("/health").status_code == 200
    assert wait_until(echo.is_idle)
    assert echo.complete("abc", max_tokens=2).status_code == 200


def test_more_answers_than_the_queue_ever_holds_are_refused_for_good(fake: MakeServed):
    response = fake(max_open=4).complete("abc", n=5)
    assert response.status_code == 400
    assert "5 answers at once; this server holds 4" in error_of(response)["message"]


def test_a_stop_in_the_notebook_is_an_error_in_the_stream(fake: MakeServed):
    echo = fake(step_s=0.02)
    threading.Timer(0.3, lambda: echo.server._service.cancel_all()).start()
    *chunks, error, done = events(echo.complete("abc", stream=True, **LONG))
    assert chunks and done == "[DONE]"
    assert error["error"]["code"] == "stopped"


def test_an_engine_that_fails_tells_its_clients_and_goes_on(fake: MakeServed):
    echo = fake(fail_at=3)
    response = echo.complete("abc", **LONG)
    assert response.status_code == 500
    assert "told to fail" in error_of(response)["message"]
    assert echo.complete("abc", max_tokens=3).status_code == 200


def test_an_engine_that_dies_ends_streams_with_an_error_and_is_told_to_who_comes_later(fake: MakeServed):
    echo = fake(step_s=0.02, isolation="host")
    echo.complete("warm up", max_tokens=1)
    threading.Timer(0.5, echo.handle._connection.link.kill).start()
    *chunks, error, _ = events(echo.complete("abc", stream=True, **LONG))
    assert chunks
    assert error["error"]["code"] == "engine_died"
    later = echo.complete("abc")
    assert later.status_code == echo.http.get("/health").status_code == 503
    # wherever a request was when the engine died
    for route, body in (("/v1/completions", {"prompt": "abc"}), ("/detokenize", {"tokens": [97]})):
        assert error_of(echo.http.post(route, json=body))["code"] == "engine_died", route
    assert "SIGKILL" in error_of(later)["message"]
    assert echo.metric("llmlab_engine_up") == 0


def test_stop_ends_what_streams_and_frees_the_port(fake: MakeServed):
    echo = fake(step_s=0.02)
    threading.Timer(0.3, echo.server.stop).start()
    assert events(echo.complete("abc", stream=True, **LONG))[-2]["error"]["code"] == "stopped"
    assert wait_until(lambda: not echo.server.running)
    again = llmlab.serve(echo.handle, port=echo.server.port)
    again.stop()
    assert echo.handle.generate("abc", max_tokens=3).text == "abc"


def test_a_server_ends_with_its_engine(fake: MakeServed):
    echo = fake()
    echo.handle.unload()
    assert wait_until(lambda: not echo.server.running)
    assert servers() == []


def test_the_notebook_goes_on_with_its_engine_while_clients_use_it(fake: MakeServed):
    echo = fake(step_s=0.005)
    before = echo.handle.generate("mine", max_tokens=4)
    with begin(echo, stream=True):
        assert wait_until(lambda: echo.server.num_open == 1)
        assert echo.handle.last is not None and echo.handle.last.request_id == before.request_id
        assert echo.handle.generate("also", max_tokens=4).text == "also"
    assert wait_until(echo.is_idle)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"port": 70_000}, "Nothing can listen at 127.0.0.1:70000"),
        ({"host": "256.1.1.1"}, "Nothing can listen at 256.1.1.1"),
        ({"token": "short"}, "8 or more plain characters"),
        ({"token": "with a space"}, "8 or more plain characters"),
        ({"tls_cert": "cert.pem"}, "TLS needs both"),
        ({"tls_cert": "/nowhere/cert.pem", "tls_key": "/nowhere/key.pem"}, "cert.pem cannot be read"),
        ({"max_open": 0}, "max_open is 0; it is 1 or more"),
    ],
)
def test_a_server_that_cannot_be_says_why(fake: MakeServed, wrong: dict[str, object], says: str):
    handle = fake().handle
    with pytest.raises(EngineError, match=says):
        llmlab.serve(handle, **wrong)


def test_a_taken_port_is_told(fake: MakeServed):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EngineError, match="Choose another port"):
        llmlab.serve(fake().handle, port=taken.getsockname()[1])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_two_flags_make_it_https(fake: MakeServed, tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    echo = fake(tls_cert=cert, tls_key=key)
    assert echo.url.startswith("https://127.0.0.1:")
    trust, headers = ssl.create_default_context(cafile=str(cert)), {"Authorization": f"Bearer {echo.token}"}
    assert httpx.get(f"{echo.url}/health", headers=headers, verify=trust).json() == {"status": "ok"}
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{echo.server.port}/health", headers=headers)
