"""Ollama through its official client, against a conformance server of its documented API (ollama_conformance.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ollama_conformance import OllamaConformance

import llmlab
from llmlab.errors import EngineDied, EngineError, RequestError


@pytest.fixture
def server() -> Iterator[OllamaConformance]:
    with OllamaConformance() as server:
        yield server


def test_it_says_what_the_server_shows(server: OllamaConformance):
    handle = llmlab.connect(server.url, kind="ollama")
    header = handle.header
    assert (header.engine, header.engine_version, header.model) == ("ollama", "0.12.0", "echo:latest")
    assert (header.quant, header.max_model_len) == ("Q4_K_M", 2048)
    assert llmlab.connect(server.url, kind="ollama", model="echo").model == "echo:latest"


def test_an_answer_has_the_durations_that_ollama_reports(server: OllamaConformance):
    handle = llmlab.connect(server.url, kind="ollama", keep_alive="10m", ctx=512)
    result = handle.generate("abc", max_tokens=5, temperature=0.5, top_k=3, stop=["x"], seed=4, system="Echo.")
    assert (result.text, result.finish_reason, len(result.tokens)) == ("abcab", "length", 5)
    assert result.reported == {
        "num_prompt_tokens": 3, "num_output_tokens": 5, "load_s": 0.005, "prompt_s": 0.001, "eval_s": 0.003,
        "total_s": 0.009,
    }  # fmt: skip
    assert handle.trace.validate() == []
    path, _, body = server.asked[-1]
    assert path == "/api/chat"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["keep_alive"] == "10m"
    assert body["options"] == {
        "temperature": 0.5, "top_k": 3, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 4, "num_predict": 5,
        "stop": ["x"], "num_ctx": 512,
    }  # fmt: skip
    handle.generate("abc", max_tokens=5)
    assert {**server.asked[-1][2]["options"], "stop": []} == {
        "temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 0, "num_predict": 5,
        "stop": [], "num_ctx": 512,
    }  # fmt: skip


def test_a_bare_text_goes_to_generate_and_a_schema_is_its_format(server: OllamaConformance):
    handle = llmlab.connect(server.url, kind="ollama")
    assert handle.generate("xy", raw=True, max_tokens=3, json_schema={"type": "object"}).text == "xyx"
    path, _, body = server.asked[-1]
    assert (path, body["raw"], body["prompt"], body["format"]) == ("/api/generate", True, "xy", {"type": "object"})


def test_streams_batches_and_comparisons_work_as_anywhere(server: OllamaConformance):
    handle = llmlab.connect(server.url, kind="ollama")
    assert "".join(event.text for event in handle.stream("abc", max_tokens=4)) == "abca"
    assert [result.text for result in handle.batch(["a", "bc"], max_tokens=3).wait()] == ["aaa", "bcb"]
    found = llmlab.compare("abc", engines=handle, max_tokens=[2, 3])
    assert [result.text for result in found.results[0] if result is not None] == ["ab", "abc"]


def test_a_missing_model_is_fetched_for_who_asks_and_the_server_tells_how_far_it_is(
    server: OllamaConformance, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(EngineError, match=r"no model 'tiny'. It has: echo:latest. .*--model tiny --pull"):
        llmlab.connect(server.url, kind="ollama", model="tiny")
    told: list[tuple[str, int, int]] = []
    from llmlab.remote.ollama_server import OllamaServer

    pull = OllamaServer.pull

    async def watched(self: OllamaServer, model: str, progress: object) -> None:
        await pull(self, model, lambda *news: told.append(news))

    monkeypatch.setattr(OllamaServer, "pull", watched)
    handle = llmlab.connect(server.url, kind="ollama", model="tiny", pull=True)
    assert handle.generate("ab", max_tokens=2).text == "ab"
    assert told == [
        ("pulling manifest", 0, 0), ("pulling d", 0, 100), ("pulling d", 40, 100), ("pulling d", 100, 100),
        ("success", 0, 0),
    ]  # fmt: skip
    with pytest.raises(EngineError, match="file does not exist"):
        llmlab.connect(server.url, kind="ollama", model="nowhere", pull=True)


@pytest.mark.parametrize("option", [{"ignore_eos": True}, {"choice": ("a", "b")}, {"grammar": 'root ::= "a"'}])
def test_what_ollama_cannot_do_is_refused(server: OllamaConformance, option: dict[str, object]):
    handle = llmlab.connect(server.url, kind="ollama")
    with pytest.raises(RequestError, match=f"takes no {next(iter(option))}"):
        handle.generate("abc", **option)
    with pytest.raises(RequestError, match="takes texts, not token ids"):
        handle.generate([1, 2])


def test_an_answer_that_breaks_off_keeps_what_had_come(server: OllamaConformance):
    handle = llmlab.connect(server.url, kind="ollama")
    server.break_after = 2
    with pytest.raises(EngineDied, match="broke the answer off after 2 tokens") as caught:
        handle.generate("abc", max_tokens=8)
    assert [result.text for result in caught.value.results] == ["ab"]
    server.models.clear()
    with pytest.raises(RequestError, match="not found"):
        handle.generate("abc")


def test_a_key_goes_along_and_is_not_shown(server: OllamaConformance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_API_KEY", "a-key-of-ollama")
    handle = llmlab.connect(server.url, kind="ollama")
    assert "a-key-of-ollama" not in f"{handle!r} {handle.header!r} {handle.config!r}"
    assert {headers.get("authorization") for _, headers, _ in server.asked} == {"Bearer a-key-of-ollama"}


def test_where_no_ollama_is_it_says_how_to_start_one():
    with pytest.raises(EngineDied, match=r"No Ollama at http://127.0.0.1:9. Start it"):
        llmlab.connect("http://127.0.0.1:9", kind="ollama")
