"""What every request passes: the token, the limit of its body, its id; and garbage is the client's fault."""

from __future__ import annotations

import hmac
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_support import MakeServed, Served, error_of, events

import llmlab
from llmlab.classroom.room import classroom
from llmlab.serve import Server, servers

NO_ROUTES = [("GET", "/nowhere"), ("DELETE", "/v1/models"), ("GET", "/")]


def routes_of(server: Server) -> list[tuple[str, str]]:
    """Method and path of each route, from the table of the application itself."""
    app: Any = server._door._app
    while not hasattr(app, "routes"):
        app = app._app
    routes = [
        (method, re.sub(r"{.*?}", "x", route.path)) for route in app.routes for method in route.methods - {"HEAD"}
    ]
    assert {("GET", "/metrics"), ("GET", "/trace"), ("POST", "/v1/completions")} <= set(routes)
    return routes


@pytest.fixture
def echo(fake: MakeServed) -> Served:
    return fake()


@pytest.mark.parametrize("is_class", [False, True])
@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong-token", "Basic {token}", "{token}", "Bearer {token}x"]
)
def test_without_the_token_every_route_answers_401(
    fake: MakeServed, tmp_path: Path, authorization: str | None, is_class: bool
):
    server = fake(token="right-token").server
    if is_class:
        server = classroom(server.handle, folder=tmp_path)
    headers = {} if authorization is None else {"Authorization": authorization.format(token=server.token)}
    for method, path in [*routes_of(server), *NO_ROUTES]:
        response = httpx.request(method, server.url + path, headers=headers, content=b"{}")
        assert response.status_code == 401, path
        assert error_of(response)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert server.token not in response.text


def test_tokens_are_compared_by_the_function_that_takes_equally_long(echo: Served, monkeypatch: pytest.MonkeyPatch):
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: bool(compared.append((a, b))))
    assert httpx.get(f"{echo.url}/health", headers={"Authorization": "Bearer guess"}).status_code == 401
    assert compared == [(b"guess", echo.token.encode())]


def test_each_server_makes_a_token_of_its_own_and_an_engine_has_one_server(echo: Served):
    again = llmlab.serve(echo.handle)
    assert again.token != echo.token
    assert len(again.token) >= 32
    assert again.token not in repr(again)
    assert not echo.server.running and servers() == [again]
    again.stop()
    assert servers() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_with_413(fake: MakeServed, chunked: bool):
    echo = fake(max_body_bytes=1000)

    def body() -> Iterator[bytes]:
        yield from (b" " * 400 for _ in range(5))

    content = body() if chunked else b" " * 2000
    response = echo.http.post("/v1/completions", content=content)
    assert response.status_code == 413
    assert "over 1000 bytes" in error_of(response)["message"]
    assert echo.complete("hi", max_tokens=2).status_code == 200


def test_the_id_of_a_request_is_in_its_answer_and_in_the_trace(echo: Served):
    response = echo.complete("hi", max_tokens=2, n=2, headers={"X-Request-Id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.json()["id"] == "cmpl-abc-1"
    assert {r.request_id for r in echo.handle.trace.request_records} == {"abc-1", "abc-1.1"}


def test_an_id_that_is_used_again_gets_a_number_so_that_the_trace_stays_sound(echo: Served):
    for _ in range(3):
        assert echo.complete("hi", max_tokens=2, headers={"X-Request-Id": "again"}).status_code == 200
    trace = echo.handle.trace
    assert [r.request_id for r in trace.request_records] == ["again", "again~2", "again~3"]
    assert trace.validate() == []


@pytest.mark.parametrize("given", ["", "two words", "x" * 200, "\x80\xff", '{"a":1}'])
def test_an_id_that_is_no_word_is_replaced(echo: Served, given: str):
    response = echo.http.get("/health", headers={"X-Request-Id": given.encode("latin-1")})
    assert response.status_code == 200
    assert response.headers["x-request-id"].isalnum()


@pytest.mark.parametrize(
    ("content", "param", "says"),
    [
        (b"", None, "not JSON"),
        (b"[]", None, "Expected `object`"),
        (b"{", None, "not JSON"),
        (b'{"prompt": "a"', None, "not JSON"),
        (b'\xff\xfe{"prompt"', None, "not JSON"),
        (b'{"prompt": "\\ud800"}', None, "not JSON"),
        (b"[" * 100_000, None, "Expected `object`"),
        (b'{"prompt": ' + b"[" * 100_000, None, "not JSON"),
        (b'{"prompt": "a", "metadata": ' + b'{"a":' * 20_000, None, "not JSON"),
        (b'{"prompt": "a", "max_token": 3}', None, "Did you mean 'max_tokens'?"),
        (b'{"prompt": "a", "n": "two"}', "n", "Expected `int"),
        (b'{"prompt": "a", "n": 0}', "n", ">= 1"),
        (b'{"prompt": "a", "max_tokens": 10000000000000000000000000000}', "max_tokens", "max_tokens"),
        (b'{"prompt": "a", "structured_outputs": {"json": {"a": 99999999999999999999}}}', "response_format", "64 bits"),
        (
            b'{"prompt": "a", "structured_outputs": {"json": ' + b'{"a":' * 99 + b"1" + b"}" * 101,
            "response_format",
            "64 deep",
        ),
        (b'{"prompt": "a", "n": 1e400}', "n", "n"),
        (b'{"prompt": "a", "temperature": NaN}', None, "JSON"),
        (b'{"prompt": "a", "temperature": -1}', "temperature", ">= 0"),
        (b'{"prompt": []}', "prompt", "length >= 1"),
        (b'{"prompt": [[]]}', "prompt", "prompt is a text"),
        (b'{"prompt": [1.5]}', "prompt", "prompt is a text"),
        (b'{"prompt": [-1]}', "prompt", "prompt is a text"),
        (b'{"prompt": [true]}', "prompt", "prompt is a text"),
        (b'{"prompt": [99999999999999]}', "prompt", "prompt is a text"),
        (b'{"prompt": ""}', None, "The prompt is empty"),
        (b'{"prompt": "a", "echo": true}', "echo", "Leave it out"),
        (b'{"prompt": "a", "frequency_penalty": 0.5}', "frequency_penalty", "Leave it out"),
        (b'{"prompt": "a", "logprobs": 2}', "logprobs", "no log probabilities"),
        (b'{"prompt": "a", "response_format": {"type": "json_object"}}', "response_format", "form"),
        (b'{"prompt": "a", "stream_options": {"include_usage": true}}', "stream_options", "stream: true"),
        (b'{"prompt": "a", "model": "gpt-4"}', "model", "'echo'"),
    ],
)
def test_garbage_is_answered_with_what_is_wrong_about_it(echo: Served, content: bytes, param: str | None, says: str):
    response = echo.http.post("/v1/completions", content=content)
    error = error_of(response)
    assert response.status_code == (404 if param == "model" else 400)
    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "length >= 1"),
        (["hi"], "messages"),
        ([{"role": "pirate", "content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0]"),
        ([{"role": "tool", "content": "3", "tool_call_id": "a"}], "Tool calls are not supported"),
        ([{"role": "user", "content": ""}], "The prompt is empty"),
    ],
)
def test_a_conversation_that_cannot_be_read_says_where(echo: Served, messages: list[object], says: str):
    response = echo.http.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
    error = error_of(response)
    assert says in f"{error['param']}: {error['message']}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/../etc/passwd", 404), ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/models/%ff%fe", 404), ("GET", "/v1/models/" + "x" * 5000, 404), ("GET", "/v1/models/", 404),
        ("GET", "/v1/completions", 405), ("PUT", "/v1/models", 405), ("OPTIONS", "/v1/chat/completions", 405),
    ],
)  # fmt: skip
def test_a_path_that_is_not_served_is_told_in_openais_form(echo: Served, method: str, path: str, status: int):
    response = echo.http.request(method, path)
    assert response.status_code == status
    assert "served here" in error_of(response)["message"]


@pytest.mark.parametrize(
    "raw", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_ends_the_connection_and_nothing_else(echo: Served, raw: bytes):
    with socket.create_connection(("127.0.0.1", echo.server.port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        assert b" 5" not in connection.recv(1000)[:12]
    assert echo.complete("hi", max_tokens=2).status_code == 200


@pytest.mark.slow
def test_an_idle_connection_outlives_what_clients_keep(echo: Served):
    """uvicorn by itself closes one after 5 s, as long as httpx keeps it: now and then a request would meet its end."""
    connection = http.client.HTTPConnection("127.0.0.1", echo.server.port, timeout=10)
    headers = {"Authorization": f"Bearer {echo.server.token}"}
    connection.request("GET", "/v1/models", headers=headers)
    assert connection.getresponse().read()
    kept = connection.sock
    time.sleep(6.5)
    connection.request("GET", "/v1/models", headers=headers)
    assert connection.getresponse().status == 200
    assert connection.sock is kept
    connection.close()


@pytest.mark.parametrize("seed", [0, -1, 2**32, 10**30])
def test_any_whole_number_is_a_seed(echo: Served, seed: int):
    assert echo.complete("abc", seed=seed, max_tokens=2).status_code == 200
    assert echo.handle.trace.request_records[0].sampling["seed"] == seed % 2**32


def test_a_refusal_of_the_engine_comes_before_the_stream_begins(fake: MakeServed):
    response = fake(ctx=16).chat("much too long a prompt for this engine", stream=True)
    assert response.status_code == 400
    assert "max_model_len is 16" in error_of(response)["message"]


def test_a_stream_ends_with_usage_for_who_asked(echo: Served):
    with_usage = events(echo.chat("abc", stream=True, max_tokens=4, stream_options={"include_usage": True}))
    assert with_usage[-1] == "[DONE]"
    assert with_usage[-2]["choices"] == [] and with_usage[-2]["usage"] == {
        "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
    }  # fmt: skip
    assert {event["usage"] for event in with_usage[:-2] if isinstance(event, dict)} == {None}
    without = events(echo.chat("abc", stream=True, max_tokens=4))
    assert not any("usage" in event for event in without)


def test_token_ids_come_to_who_asked_for_them(echo: Served):
    whole = echo.complete("ab", max_tokens=3, return_token_ids=True).json()["choices"][0]
    assert whole["prompt_token_ids"] == [97, 98] and whole["token_ids"] == [97, 98, 97]
    streamed = events(echo.complete("ab", max_tokens=3, return_token_ids=True, stream=True))[:-1]
    choices = [choice for event in streamed for choice in event["choices"]]
    assert choices[0]["prompt_token_ids"] == [97, 98]
    assert [i for choice in choices for i in choice["token_ids"]] == [97, 98, 97]
    assert "token_ids" not in echo.complete("ab", max_tokens=3).json()["choices"][0]


def test_texts_and_token_ids_are_told_as_vllm_tells_them(echo: Served):
    told = echo.http.post("/tokenize", json={"prompt": "aé", "model": "echo"}).json()
    assert told == {"tokens": [97, 233], "count": 2, "max_model_len": 256}
    told = echo.http.post("/detokenize", json={"tokens": [97, 233]}).json()
    assert told == {"prompt": "aé", "token_bytes": ["YQ==", "w6k="]}
    assert echo.http.post("/detokenize", json={"tokens": []}).json() == {"prompt": "", "token_bytes": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/detokenize", {"tokens": [2**30]}, 400, "is no character"), ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [97] * 70_000}, 400, "length <= 65536"),
        ("/tokenize", {"prompt": "a" * 300_000}, 400, "length <= 262144"), ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404, "not served here"),
    ],
)  # fmt: skip
def test_what_the_vocabulary_is_not_asked_is_told(
    echo: Served, path: str, body: dict[str, object], status: int, says: str
):
    response = echo.http.post(path, json=body)
    assert response.status_code == status and says in error_of(response)["message"]


def test_an_engine_without_embeddings_says_which_one_has_them(echo: Served):
    response = echo.http.post("/v1/embeddings", json={"input": "hi"})
    assert response.status_code == 400
    assert "-e llamacpp" in error_of(response)["message"]


def test_metrics_count_answers_tokens_and_refusals(echo: Served):
    echo.complete("abc", max_tokens=5)
    echo.complete("abc", max_tokens=0)
    echo.http.get("/nowhere")
    assert echo.metric("llmlab_request_success_total") == 1
    assert echo.metric("llmlab_prompt_tokens_total") == 3
    assert echo.metric("llmlab_generation_tokens_total") == 5
    assert echo.metric("llmlab_time_to_first_token_seconds_count") == 1
    assert echo.metric("llmlab_engine_up") == 1
    text = echo.http.get("/metrics").text
    assert 'llmlab_http_requests_total{path="completions",status="400"} 1.0' in text
    assert 'llmlab_http_requests_total{path="other",status="404"} 1.0' in text
