"""The log: where each request went and why, what it cost, and nothing that was said or that opens a door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_support import KEYS, TOKENS, Backends, Door, wait_until
from gateway_support import events_of as events_in

from llmlab.errors import LlmlabError
from llmlab.gateway import read_log
from llmlab.gateway.events import Event, Usage, events_of, read_event

PRICES = {"main": ", price: {prompt: 100, output: 1000}", "spare": ", price: {prompt: 0, output: 0}"}


def test_a_long_prompt_goes_by_its_rule_and_the_log_says_so(backends: Backends, tmp_path: Path):
    backends.start("main")
    backends.start("spare")
    rules = "rules: [{prompt_tokens_over: 2048, use: spare}]"
    with backends.door(tmp_path, backends.config(model=rules, of=PRICES)) as door:
        door.chat("x" * 12_000, stream=True)
        door.chat("x" * 8)
        assert wait_until(lambda: len(door.entries) == 2)
        by_rule, usual = door.entries
    assert (by_rule.backend, by_rule.reason) == ("spare", "prompt of about 3,000 tokens > 2,048: spare")
    assert (usual.backend, usual.reason) == ("main", "first in order: main")
    # 7 tokens of prompt at 100, 3 of the answer at 1000 a million
    assert (by_rule.cost, usual.cost) == (0.0, pytest.approx(0.0037))
    assert (by_rule.ttft_s is None, usual.ttft_s is None) == (False, True)  # what was not streamed has no first token


def test_token_ids_are_counted_and_not_estimated(door: Door):
    door.http.post("/v1/completions", json={"model": "chat", "prompt": [5] * 20})
    door.http.post("/v1/embeddings", json={"model": "chat", "input": ["äöü", [1, 2]]})
    assert wait_until(lambda: len(door.entries) == 2)
    table = read_log(door.server.log_path)
    assert list(table["num_prompt_tokens"]) == [7, 7]  # the backend has the last word
    assert str(table["at"].dtype).startswith("datetime64") and str(table["at"].dt.tz) == "UTC"


def test_without_a_price_the_cost_is_not_known(door: Door):
    door.chat()
    assert door.last.cost is None


def test_prompts_answers_tokens_and_keys_are_nowhere(
    backends: Backends, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    backends.start("main")
    backends.start("spare", dies_after=1)
    seen = []
    with backends.door(tmp_path) as door:
        for status in (200, 400, 401, 500):
            backends["main"].status = status
            for stream in (False, True):
                response = door.chat("a very private question", stream=stream)
                seen.append(response.text.replace("main main main", ""))
        seen += [door.http.get(path).text for path in ("/backends", "/metrics", "/v1/models", "/nowhere")]
        seen.append(repr(door.server.config))
    log = (tmp_path / "gateway.jsonl").read_text()
    assert len(log.splitlines()) == 8
    shown = capfd.readouterr()
    for secret in (*KEYS.values(), *TOKENS.values(), "private question"):
        assert secret not in "".join([log, *seen, shown.out, shown.err])
    assert "main main" not in log
    assert all(body["messages"][0]["content"] == "a very private question" for _, _, body in backends["main"].asked)


def test_each_backend_gets_its_own_key_and_never_the_token_of_a_client(door: Door, backends: Backends):
    door.chat()
    backends.stop("main")
    door.chat()
    for name in ("main", "spare"):
        [(_, headers, body)] = backends[name].asked
        assert headers["authorization"] == f"Bearer {KEYS[f'{name.upper()}_KEY']}"
        assert body["model"] == f"{name}-model"
        assert TOKENS["ANN_TOKEN"] not in str(headers)


def test_a_log_that_is_not_there_or_is_none_is_an_error(tmp_path: Path):
    with pytest.raises(LlmlabError, match="There is no log"):
        read_log(tmp_path / "gateway.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(LlmlabError, match="line 1 is no entry"):
        read_log(tmp_path / "other.jsonl")


def test_a_log_that_cannot_be_written_is_told_at_the_start_and_later_by_the_figures(backends: Backends, tmp_path: Path):
    backends.start("main")
    text = backends.config() + "log: logs/gateway.jsonl\n"
    with pytest.raises(LlmlabError, match=r"logs/gateway.jsonl cannot be written \(No such file"):
        backends.door(tmp_path, text).__enter__()
    (tmp_path / "logs").mkdir()
    with backends.door(tmp_path, text) as door:
        (tmp_path / "logs").rename(tmp_path / "elsewhere")
        assert door.chat().status_code == 200
        assert "llmlab_gateway_unlogged_requests_total 1.0" in door.http.get("/metrics").text


def test_a_line_that_a_crash_cut_off_is_left_out(door: Door):
    door.chat()
    assert door.last.status == 200
    with door.server.log_path.open("a") as file:
        file.write('{"at_s": 17')
    assert len(read_log(door.server.log_path)) == 1


async def in_pieces(stream: bytes, size: int) -> AsyncIterator[bytes]:
    for begin in range(0, len(stream), size):
        yield stream[begin : begin + size]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_events_are_cut_where_they_end_and_seen_through_in_any_pieces(size: int, end: bytes):
    said = ['a "usage":{"prompt_tokens":1} that is text', "", '"error"', "[DONE]"]
    chunks = [{"choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None} for text in said]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    chunks += [{"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}]
    written = [b": a comment", *(b"data: " + json.dumps(chunk).encode() for chunk in chunks), b"data: [DONE]"]
    stream = b"".join(one + end for one in written)

    async def collect() -> list[Event]:
        return [event async for some in events_of(in_pieces(stream + b"data: cut off", size)) for event in some]

    events = asyncio.run(collect())
    assert b"".join(event.content for event in events) == stream
    assert [event.usage for event in events] == [None] * 6 + [Usage(4, 3), None]
    assert [event.has_end for event in events] == [False] * 5 + [True, False, False]
    assert [event.has_text for event in events[:2]] == [False, True]
    assert [event.is_done for event in events] == [False] * 7 + [True]
    assert [event.error for event in events] == [None] * 8


def test_a_backend_that_fails_in_the_middle_is_passed_on_as_it_says_it(door: Door, backends: Backends):
    event = read_event(b'data: {"error": {"message": "m", "code": "engine_died"}}\r\n\r\n')
    assert (event.error, event.has_text) == ("engine_died", False)
    events = events_in(door.chat(stream=True))
    assert json.dumps(events[1]["choices"][0]["delta"]) == '{"content": "main "}'
