"""Backends that die, hang, refuse or come back, and what their clients get."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateway_support import TOKENS, Backends, Door, bearer, error_of, events_of, text_of, wait_until

from llmlab.gateway.log import Attempt

NUM_STREAMS = 20


def stream_on(door: Door, **fields: Any) -> list[Any]:
    """The events of a stream on a connection of its own."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    url = f"{door.url}/v1/chat/completions"
    with httpx.stream("POST", url, headers=bearer("ANN_TOKEN"), timeout=120, json=body) as response:
        return events_of(response)


def test_killed_under_20_streams_it_ends_them_with_an_error_and_new_requests_move_at_once(
    door: Door, backends: Backends
):
    main = backends["main"]
    main.num_pieces, main.gap_s = 1000, 0.02
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        running = [pool.submit(stream_on, door) for _ in range(NUM_STREAMS)]
        assert wait_until(lambda: main.num_open == NUM_STREAMS)
        under_way = door.server._forwarder._running
        assert wait_until(lambda: all(exchange.num_events for exchange in list(under_way)))
        backends.stop("main")
        killed_s = time.monotonic()
        moved = door.chat()
        took_s = time.monotonic() - killed_s
        answers = [one.result() for one in running]
    assert moved.status_code == 200 and moved.headers["x-llmlab-backend"] == "spare"
    assert took_s < 2
    for *events, error, done in answers:
        assert text_of(events).startswith("main ") and done == "[DONE]"
        assert error["error"].keys() == {"message", "type", "param", "code"}
        assert error["error"]["code"] == "backend_died"
        assert "The backend main broke the answer off after" in error["error"]["message"]
    assert wait_until(lambda: len(door.entries) == NUM_STREAMS + 1)
    ended = [entry for entry in door.entries if entry.error == "backend_died"]
    assert len(ended) == NUM_STREAMS
    assert {(entry.backend, entry.counted_by) for entry in ended} == {("main", "estimated")}
    assert all(entry.num_output_tokens and entry.num_output_tokens > 0 for entry in ended)


def test_the_official_client_raises_when_its_stream_breaks_off(door: Door, backends: Backends):
    backends["main"].dies_after = 2
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key=TOKENS["ANN_TOKEN"], max_retries=0) as client:
        stream = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hi"}], stream=True)
        said = []
        with pytest.raises(openai.APIError, match="broke the answer off after 2 pieces"):
            said += [chunk.choices[0].delta.content for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_got_no_word_yet_is_answered_by_another(door: Door, backends: Backends, stream: bool):
    main = backends["main"]
    main.num_pieces, main.gap_s = 1000, 10  # its role has come, and no text
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        running = [pool.submit(door.chat, stream=stream) for _ in range(NUM_STREAMS)]
        assert wait_until(lambda: main.num_open == NUM_STREAMS)
        backends.stop("main")
        answers = [one.result() for one in running]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-llmlab-backend"] for answer in answers} == {"spare"}
    if stream:
        assert {text_of(events_of(answer)[:-1]) for answer in answers} == {"spare spare spare "}
    assert wait_until(lambda: len(door.entries) == NUM_STREAMS)
    for entry in door.entries:
        assert [attempt.backend for attempt in entry.attempts] == ["main"]
        assert entry.error is None and entry.reason.endswith("next in order: spare")


def test_an_answer_that_is_not_streamed_and_breaks_off_is_answered_by_another(door: Door, backends: Backends):
    backends["main"].dies_after = 2
    assert "spare" in door.chat().json()["choices"][0]["message"]["content"]


def test_a_backend_that_comes_back_is_used_again(door: Door, backends: Backends):
    backends.stop("main")
    assert door.chat().headers["x-llmlab-backend"] == "spare"
    assert door.http.get("/backends").json()["main"]["up"] is False
    assert door.http.get("/health").status_code == 200
    backends.start("main")
    assert wait_until(lambda: door.http.get("/backends").json()["main"]["up"], 2)
    assert door.chat().headers["x-llmlab-backend"] == "main"


def test_without_any_backend_the_answer_is_503_and_says_when_to_come_back(door: Door, backends: Backends):
    for name in ("main", "spare"):
        backends.stop(name)
    for _ in range(2):  # the first finds them gone, the second knows
        response = door.chat()
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        error = error_of(response)
        assert error["code"] == "no_backend" and "main" in error["message"] and "spare" in error["message"]
    assert door.http.get("/health").status_code == 503
    assert door.last.backend is None and door.last.cost is None


def test_a_busy_backend_passes_a_request_on_and_all_busy_is_429(door: Door, backends: Backends):
    backends["main"].status, backends["main"].headers = 429, {"Retry-After": "7"}
    response = door.chat()
    assert response.status_code == 200 and response.headers["x-llmlab-backend"] == "spare"
    assert door.last.attempts == [Attempt("main", "busy, HTTP 429")]
    assert door.last.reason == "main did not take it (busy, HTTP 429); next in order: spare"
    backends["spare"].status, backends["spare"].headers = 429, {"Retry-After": "3"}
    response = door.chat()
    assert response.status_code == 429 and response.headers["retry-after"] == "3"
    assert door.http.get("/backends").json()["main"]["up"] is True


@pytest.mark.parametrize("status", [401, 404, 500, 502, 503])
def test_a_backend_that_refuses_its_key_lacks_the_model_or_fails_passes_a_request_on(
    door: Door, backends: Backends, status: int
):
    backends["main"].status = status
    response = door.chat(stream=True)
    assert response.status_code == 200 and response.headers["x-llmlab-backend"] == "spare"
    assert f"HTTP {status}" in door.last.attempts[0].why


def test_what_is_the_clients_fault_is_told_in_the_backends_words_without_its_key(door: Door, backends: Backends):
    backends["main"].status = 400
    response = door.chat()
    assert response.status_code == 400
    assert error_of(response)["message"] == "told to fail (Bearer [key])"
    assert len(backends["main"].asked) == 1 and backends["spare"].asked == []
    assert (door.last.status, door.last.error, door.last.cost) == (400, "refused", None)


def test_a_request_that_ends_every_backend_does_not_go_round(backends: Backends, tmp_path: Path):
    for name in ("main", "spare", "third"):
        backends.start(name, dies_after=0)
    with backends.door(tmp_path) as door:
        response = door.chat()
        assert response.status_code == 503
        assert error_of(response)["code"] == "backend_failed"
        assert [len(backends[name].asked) for name in ("main", "spare", "third")] == [1, 1, 0]


def test_a_host_that_hangs_loses_the_requests_that_wait_for_it(door: Door, backends: Backends):
    backends["main"].hangs = True
    assert door.chat().headers["x-llmlab-backend"] == "spare"
    assert door.last.attempts == [Attempt("main", "no answer within 0.8 s")]
    backends["main"].hangs = False
    assert wait_until(lambda: door.http.get("/backends").json()["main"]["up"])


def test_a_server_whose_engine_has_died_is_down(door: Door, backends: Backends):
    backends["main"].metrics = b"llmlab_engine_up 0.0\n"
    assert wait_until(lambda: door.http.get("/backends").json()["main"]["up"] is False)
    assert door.chat().headers["x-llmlab-backend"] == "spare"
    assert door.last.reason == "main is down (it has no engine any more); next in order: spare"


def test_a_server_without_metrics_is_looked_at_by_its_models(backends: Backends, tmp_path: Path):
    backends.start("main", metrics=b"")
    with backends.door(tmp_path) as door:
        shown = door.http.get("/backends").json()["main"]
        assert (shown["up"], shown["num_waiting"], shown["kv_use"]) == (True, None, None)
        backends.stop("main")
        assert wait_until(lambda: door.http.get("/backends").json()["main"]["up"] is False)


def test_a_url_with_the_v1_of_clients_leads_to_the_same_server(backends: Backends, tmp_path: Path):
    url = backends.start("main").url
    with backends.door(tmp_path, backends.config().replace(url, f"{url}/v1/")) as door:
        assert door.chat().status_code == 200
        assert wait_until(lambda: door.http.get("/backends").json()["main"]["num_running"] == 0)


def test_a_url_where_there_is_no_such_api_is_told(backends: Backends, tmp_path: Path):
    url = backends.start("main", metrics=b"").url
    with backends.door(tmp_path, backends.config().replace(url, f"{url}/elsewhere")) as door:
        assert wait_until(
            lambda: door.http.get("/backends").json()["main"]["why_down"] == "no list of models at /v1/models"
        )


def test_why_a_backend_is_down_is_said_in_plain_words(backends: Backends, tmp_path: Path):
    url = backends.start("main").url
    backends.start("spare")
    text = backends.config().replace(url, url.replace("http:", "https:"))
    backends.stop("spare")
    with backends.door(tmp_path, text) as door:
        shown = door.http.get("/backends").json()
        assert shown["main"]["why_down"] == "it does not speak TLS: http instead of https?"
        assert shown["spare"]["why_down"] == "connection refused"


def test_who_waits_where_is_read_from_the_backends(backends: Backends, tmp_path: Path):
    backends.start("main", metrics=b'vllm:num_requests_waiting{engine="0"} 9.0\nvllm:kv_cache_usage_perc 0.5\n')
    backends.start("spare")
    with backends.door(tmp_path, backends.config(of={"main": ", max_waiting: 8"})) as door:
        assert door.chat().headers["x-llmlab-backend"] == "spare"
        assert door.last.reason == "main has 9 waiting > 8; next in order: spare"
        shown = door.http.get("/backends").json()["main"]
        assert (shown["num_waiting"], shown["kv_use"]) == (9, 0.5)


@pytest.mark.parametrize("gap_s", [0.02, 20.0])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_answer_on_the_backend(
    door: Door, backends: Backends, stream: bool, gap_s: float
):
    main = backends["main"]
    main.num_pieces, main.gap_s = 500, gap_s
    with httpx.Client(timeout=0.5) as client:
        body = {"model": "chat", "messages": [], "stream": stream}
        with (
            pytest.raises(httpx.ReadTimeout),
            client.stream("POST", f"{door.url}/v1/chat/completions", json=body, headers=bearer("ANN_TOKEN")) as answer,
        ):
            for _ in answer.iter_raw():
                if main.num_open and len(door.entries) == 0 and gap_s < 1:
                    raise httpx.ReadTimeout("enough")
    assert wait_until(lambda: main.num_open == 0)
    assert wait_until(lambda: bool(door.entries))
    assert (door.last.status, door.last.error, door.last.backend) == (499, "client_gone", "main")
    shown = door.http.get("/backends").json()
    assert shown["main"] == {**shown["main"], "up": True, "num_open": 0}


@pytest.mark.parametrize("gap_s", [0.02, 20.0])
def test_a_gateway_that_is_stopped_tells_who_waits(door: Door, backends: Backends, gap_s: float):
    main = backends["main"]
    main.num_pieces, main.gap_s = 500, gap_s
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(door.chat, stream=True)
        assert wait_until(lambda: main.num_open == 1)
        time.sleep(0.1)
        door.server.stop()
        answer = running.result()
    error = events_of(answer)[-2]["error"] if gap_s < 1 else error_of(answer)
    assert error["code"] == "stopped" and "the gateway was stopped" in error["message"]
    assert door.last.error == "stopped"


def test_while_streams_run_other_clients_are_served(door: Door, backends: Backends):
    main = backends["main"]
    main.num_pieces, main.gap_s = 20, 0.02
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(stream_on(door))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert door.http.get("/v1/models").status_code == 200
    for thread in threads:
        thread.join()
    assert {text_of(events[:-1]) for events in answers} == {"main " * 20}
    assert {event.get("usage") for events in answers for event in events[:-1]} == {None}  # nobody asked for it
    assert wait_until(lambda: len(door.entries) == 8)
    assert {(entry.num_output_tokens, entry.counted_by) for entry in door.entries} == {(20, "reported")}


def test_a_client_that_asks_for_the_usage_gets_it(door: Door):
    events = events_of(door.chat(stream=True, stream_options={"include_usage": True}))
    assert events[-1] == "[DONE]" and events[-2]["usage"]["completion_tokens"] == 3
