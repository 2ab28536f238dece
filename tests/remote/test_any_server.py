"""What servers do that ours does not: no token ids, errors in the middle, busy ones; and keys that stay secret."""

from __future__ import annotations

import functools
import http.server
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer, chunk

import llmlab
from llmlab.errors import EngineDied, EngineError, LlmlabError, RequestError
from llmlab.remote.keys import Key
from tests.local_servers import LocalServer

ANSWER = [chunk("The "), chunk("sky"), chunk(end="stop"), {**chunk(), "choices": [], "usage": {
    "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}, "[DONE]"]  # fmt: skip


def test_a_server_that_tells_no_tokens_is_told_from_one_that_does(scripted: ScriptedServer):
    scripted.script = [ANSWER]
    handle = llmlab.connect(scripted.url)
    result = handle.generate("Why?", max_tokens=8, seed=3)
    assert (result.text, result.finish_reason) == ("The sky", "stop")
    assert not handle.capabilities.token_ids and min(result.token_ids) >= 2**31
    assert (result.num_prompt_tokens, result.reported["num_output_tokens"]) == (7, 2)
    path, _, body = scripted.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Why?"}]
    assert (body["max_completion_tokens"], body["seed"], body["temperature"]) == (8, 3, 0)
    assert not {"top_k", "min_p", "ignore_eos", "return_token_ids"} & body.keys()
    with pytest.raises(EngineError, match="does not tell what a token is made of"):
        handle.pieces([1])


@pytest.mark.parametrize(
    ("owned_by", "off"),
    [
        ("vllm", {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llamacpp", {"top_k": 0, "top_p": 1.0, "min_p": 0.0}), ("llmlab", {}), ("somebody", {}),
    ],
)  # fmt: skip
def test_what_is_not_asked_for_is_off_whatever_a_server_would_do_by_itself(owned_by: str, off: dict[str, float]):
    names = {"top_k", "top_p", "min_p", "repetition_penalty"}
    with ScriptedServer(owned_by) as server:
        server.script = [ANSWER] * 2
        handle = llmlab.connect(server.url)
        handle.generate("Why?", max_tokens=8)
        handle.generate("Why?", max_tokens=8, top_p=0.5, **({"min_p": 0.1} if off else {}))
        first, second = (
            {name: body[name] for name in names & body.keys()} for path, _, body in server.asked if "chat" in path
        )
        assert first == off and second == {**off, "top_p": 0.5, **({"min_p": 0.1} if off else {})}


@pytest.mark.parametrize("page", [None, "<html>hello</html>", "[]", "{}"])
def test_what_is_no_such_server_is_told_in_words(tmp_path: Path, page: str | None):
    (tmp_path / "v1").mkdir()
    if page is not None:
        (tmp_path / "v1" / "models").write_text(page)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with (
        LocalServer(handler) as server,
        pytest.raises(EngineError, match=r"no list of models at /v1/models|has no model yet"),
    ):
        llmlab.connect(server.url)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_its_answers_are_compared_by_their_text(scripted: ScriptedServer):
    scripted.script = [ANSWER, [chunk("The s"), chunk("ea"), chunk(end="stop"), "[DONE]"]]
    found = llmlab.compare("Why?", engines=llmlab.connect(scripted.url), seed=[1, 2])
    assert found.first_divergence is not None
    assert (found.first_divergence.index, found.first_divergence.tokens) == (1, ("sky", "ea"))


def test_what_it_has_no_field_for_is_refused_before_it_is_asked(scripted: ScriptedServer):
    handle = llmlab.connect(scripted.url)
    for option in ({"top_k": 5}, {"ignore_eos": True}, {"choice": ("a", "b")}):
        with pytest.raises(RequestError, match=f"takes no {next(iter(option))}"):
            handle.generate("Why?", **option)
    assert scripted.asked == []


BUSY = (429, {"Retry-After": "0"}, {"error": {"message": "busy"}})


def test_a_busy_server_is_asked_again_and_a_failing_one_is_not(scripted: ScriptedServer):
    handle = llmlab.connect(scripted.url)
    scripted.script = [BUSY, BUSY, ANSWER]
    assert handle.generate("Why?").text == "The sky"
    scripted.script = [BUSY] * 3
    with pytest.raises(EngineError, match="has too much to do"):
        handle.generate("Why?")
    scripted.script = [(500, {}, {"error": {"message": "out of memory"}}), ANSWER]
    with pytest.raises(EngineError, match="failed: out of memory"):
        handle.generate("Why?")
    assert len(scripted.asked) == 7 and len(scripted.script) == 1


@pytest.mark.parametrize(
    "end",
    [[None], ["[DONE]"], [], [{"error": {"message": "engine crashed"}}], ["{not json"]],
    ids=["connection ends", "no finish reason", "stream ends", "error event", "no json"],
)
def test_an_answer_that_breaks_off_keeps_what_had_come_and_is_not_asked_again(scripted: ScriptedServer, end: list[Any]):
    scripted.script = [[chunk("The "), chunk("sky"), *end], ANSWER]
    handle = llmlab.connect(scripted.url)
    with pytest.raises(EngineDied, match="broke the answer off after 2 tokens") as caught:
        handle.generate("Why?")
    assert [result.text for result in caught.value.results] == ["The sky"]
    assert len(scripted.asked) == 1
    assert handle.generate("Why?").text == "The sky"


SECRET = "sk-never-to-be-seen-0123456789"


def test_a_key_is_in_no_trace_log_error_or_file(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("SERVER_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    scripted.script = [
        ANSWER,
        (400, {}, {"error": {"message": f"bad request with key {SECRET}"}}),
        (401, {}, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}),
        [chunk("The "), {"error": {"message": f"key {SECRET} was revoked"}}],
    ]
    handle = llmlab.connect(scripted.url, api_key_env="SERVER_KEY")
    seen = [repr(handle), repr(handle.config), repr(handle.header), repr(handle.generate("Why?"))]
    for _ in range(3):
        with pytest.raises(LlmlabError) as caught:
            handle.generate("Why?")
        seen += [str(caught.value), repr(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    handle.trace.save(tmp_path / "run.jsonl")
    (tmp_path / "results.pickle").write_bytes(pickle.dumps(handle.last))
    seen += [handle.logs(), caplog.text, *(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())]
    assert all(asked[1]["authorization"] == f"Bearer {SECRET}" for asked in scripted.asked)
    assert not [text for text in seen if SECRET in text]
    assert not [text for text in seen if SECRET[:12] in text]


def test_a_key_comes_from_the_keyring_when_no_variable_is_named(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
):
    import keyring

    known = {("llmlab", scripted.url): SECRET}
    monkeypatch.setattr(keyring, "get_password", lambda service, name: known.get((service, name)))
    scripted.script = [ANSWER]
    llmlab.connect(scripted.url).generate("Why?")
    assert scripted.asked[0][1]["authorization"] == f"Bearer {SECRET}"


def test_a_key_hides_itself():
    key = Key(SECRET)
    assert SECRET not in f"{key} {key!r} {pickle.dumps(key)!r} {key.hide(f'wrong: {SECRET}')}"
