"""An engine behind a URL, as a handle: against our own server, which has the engine without a model behind it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from serve_support import MakeServed, wait_until

import llmlab
from llmlab.errors import EngineDied, EngineError, RequestError
from llmlab.remote import RemoteHandle

Far = Callable[..., RemoteHandle]


def test_it_answers_as_the_engine_does_and_tells_the_same_tokens(fake: MakeServed, far: Far):
    handle = far()
    near = next(h for h in llmlab.handles().values() if h.name == "echo")
    own, answer = near.generate("abc", max_tokens=5), handle.generate("abc", max_tokens=5)
    assert (answer.text, answer.token_ids, answer.prompt_token_ids, answer.finish_reason) == (
        own.text, own.token_ids, own.prompt_token_ids, own.finish_reason,
    )  # fmt: skip
    assert answer.reported == {"num_prompt_tokens": 9, "num_output_tokens": 5}
    assert answer.ttft_s is not None and answer.e2e_s is not None and 0 < answer.ttft_s <= answer.e2e_s
    raw, ids = handle.generate("abc", raw=True, max_tokens=4), handle.generate([97, 98], max_tokens=4)
    assert (raw.text, ids.text) == ("abca", "abab")


def test_it_tells_token_ids_and_texts_of_a_vocabulary(far: Far):
    handle = far()
    assert handle.tokenize("aé") == [97, 233]
    assert handle.pieces([97, 233]) == [b"a", "é".encode()] and handle.detokenize([233, 97]) == "éa"
    with pytest.raises(RequestError, match="is no character"):
        handle.pieces([2**30])


def test_it_is_the_current_engine_and_says_what_it_is(far: Far):
    handle = far()
    assert llmlab.current() is handle
    assert (handle.engine, handle.model, handle.header.engine) == ("openai", "echo", "fake_engine:FakeEngine")
    assert handle.header.max_model_len == 256
    assert handle.url in repr(handle)
    assert handle.capabilities.kv == "none"


def test_tokens_stream_while_they_come_and_leaving_ends_the_answer_there(far: Far):
    handle = far(step_s=0.02)
    near = llmlab.handles()["echo"]
    stream = handle.stream("abc", max_tokens=200, ignore_eos=True)
    came = [next(stream).text for _ in range(3)]
    assert came == ["a", "b", "c"]
    stream.close()
    assert stream.result.finish_reason == "interrupted" and stream.result.text.startswith("abc")
    assert wait_until(lambda: near.num_open_requests == 0)


def test_a_batch_arrives_when_it_should_and_keeps_its_order(far: Far):
    run = far().batch(["one", "two", {"prompt": "three", "max_tokens": 2}], arrivals=[0.2, 0, 0.1], max_tokens=3)
    assert [result.text for result in run.wait()] == ["one", "two", "th"]
    assert run.trace.validate() == []
    sent_s = [request.arrival_s for request in run.trace.request_records]
    assert sent_s == sorted(sent_s) and sent_s[-1] - sent_s[0] == pytest.approx(0.2, abs=0.01)
    times = llmlab.metrics.request_times(run.trace)
    assert {name: len(t.token_times_s) for name, t in times.items()} == {"r1": 3, "r2": 3, "r3": 2}


def test_a_trace_of_it_is_saved_read_and_drawn_without_what_nobody_saw(far: Far, tmp_path: Path):
    run = far().batch(["abc", "xy"], max_tokens=3)
    results = run.wait()
    run.trace.save(tmp_path / "far.jsonl")
    trace = llmlab.Trace.load(tmp_path / "far.jsonl")
    assert trace.validate() == [] and not trace.header.capabilities.steps
    assert sum(len(step.tokens) for step in trace.step_records) == 6
    for view in (llmlab.timeline(trace), llmlab.kv_cache(trace), llmlab.tokens(results[0])):
        assert view._repr_html_() if hasattr(view, "_repr_html_") else repr(view)


def test_what_the_server_refuses_is_told_and_others_go_on(far: Far):
    handle = far(ctx=24)
    with pytest.raises(RequestError, match="max_model_len is 24"):
        handle.generate("a very long prompt for this engine")
    run = handle.batch(["a very long prompt for this engine", "abc"], max_tokens=2)
    assert [result.error is None for result in run.wait()] == [False, True]


def test_it_compares_with_an_engine_that_is_loaded_here(far: Far):
    handle = far()
    found = llmlab.compare(["abc", "xyz"], engines=[llmlab.handles()["echo"], handle], max_tokens=6)
    assert [[r.text for r in row if r is not None] for row in found.results] == [["abcabc"] * 2, ["xyzxyz"] * 2]
    assert found.first_divergence is None
    other = llmlab.compare("abc", engines=handle, seed=[1, 2], max_tokens=[2, 3])
    assert "abc" in repr(other) or other.results


@pytest.mark.slow
def test_it_is_measured_under_load(far: Far):
    handle = far(ctx=2048, seqs=16, step_tokens=4096, num_cells=16_000, step_s=0.002)
    result = llmlab.bench(handle, workload="burst", sweep=[4], num_requests=4, repeats=1)
    (measured,) = result.measurements
    assert list(result.problems) == []
    assert (measured.num_ended, measured.is_complete) == (4, True)
    assert len(measured.ttft_s) == 4 and measured.cpu_s is None and measured.rss_peak_bytes is None


def test_what_only_the_machine_of_the_engine_can_do_is_refused(far: Far):
    handle = far()
    for asked in (handle.pause, handle.step, handle.resume, lambda: handle.slow(1), handle.chat_format):
        with pytest.raises(EngineError, match=r"needs an engine of your own|does not tell chat_format"):
            asked()
    assert handle.memory() == {}
    with pytest.raises(TypeError, match="cannot be pickled"):
        __import__("pickle").dumps(handle)


def test_unloading_forgets_it_here_and_leaves_the_server(fake: MakeServed, far: Far):
    handle = far()
    near = llmlab.handles()["echo"]
    handle.unload()
    assert "far" not in llmlab.handles() and not handle.alive
    with pytest.raises(EngineDied, match=r"llmlab.connect"):
        handle.generate("abc")
    assert near.generate("abc", max_tokens=3).text == "abc"
    assert not [t for t in threading.enumerate() if t.name == "llmlab remote"]


def test_a_server_that_dies_in_the_middle_leaves_what_had_come(far: Far):
    handle = far(step_s=0.03, isolation="host")
    near = llmlab.handles()["echo"]
    handle.generate("abc", max_tokens=1)
    threading.Timer(0.5, near._connection.link.kill).start()
    with pytest.raises(EngineDied, match=r"broke the answer off after \d+ tokens.*SIGKILL") as caught:
        handle.generate("abc", max_tokens=200, ignore_eos=True)
    (partial,) = caught.value.results
    assert partial.text and ("abc" * 80).startswith(partial.text)
    assert partial.finish_reason == "error"
    assert handle.last is not None and handle.last.text == partial.text
    assert handle.alive  # the server may come back
    assert handle.trace.validate() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"url": "http://127.0.0.1:9"}, r"No server at http://127\.0\.0\.1:9 .*Start one"),
        ({"url": "ftp://x"}, "no URL of a server"),
        ({"url": "http://me:secret@host"}, "password or parameters"),
        ({"url": "http://host?key=secret"}, "password or parameters"),
        ({"url": "http://me:secret@host:99999"}, "password or parameters"),
        ({"url": "http://host:99999"}, "no URL of a server"),
        ({"url": "http://[::1"}, "no URL of a server"),
        ({"url": "http://127.0.0.1:9 "}, "no URL of a server"),
        ({"url": "http://127.0.0.1:9", "kind": "opnai"}, "Did you mean 'openai'"),
        ({"url": "http://127.0.0.1:9", "api_key_env": "NOT_THERE"}, "no variable 'NOT_THERE'"),
        ({"url": "http://127.0.0.1:9", "api_key_env": "sk-secret"}, "no variable 'sk-…'"),
        ({"url": "http://127.0.0.1:9", "api_key_env": "TWO_WORDS"}, "in the variable 'TWO_WORDS' is no key"),
    ],
)
def test_a_server_that_cannot_be_connected_says_why(
    arguments: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWO_WORDS", "secret “key”")
    with pytest.raises(EngineError, match=says) as caught:
        llmlab.connect(**arguments)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_of_ones_own_is_named_and_then_answers_and_the_trace_come_through_https(
    fake: MakeServed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    echo = fake(tls_cert=cert, tls_key=key)
    monkeypatch.setenv("ECHO_KEY", echo.token)
    with pytest.raises(EngineError, match=r"is not trusted here .*SSL_CERT_FILE") as caught:
        llmlab.connect(echo.url, api_key_env="ECHO_KEY")
    assert echo.token not in str(caught.value)
    with pytest.raises(EngineError, match=f"hung up without an answer. If it speaks https: {echo.url}"):
        llmlab.connect(echo.url.replace("https", "http"), api_key_env="ECHO_KEY")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    handle = llmlab.connect(echo.url, api_key_env="ECHO_KEY", trace=True)
    answer = handle.generate("abc", max_tokens=5)
    assert answer.text == "abcab"
    assert [r.prompt_text for r in answer.trace.request_records] == ["<user>abc"]


def test_a_key_that_was_read_from_a_file_with_its_line_end_opens(fake: MakeServed, monkeypatch: pytest.MonkeyPatch):
    echo = fake()
    monkeypatch.setenv("ECHO_KEY", f"{echo.token}\n")
    assert llmlab.connect(echo.url, api_key_env="ECHO_KEY").generate("abc", max_tokens=3).text == "abc"


def test_another_model_or_key_is_told(fake: MakeServed, monkeypatch: pytest.MonkeyPatch):
    echo = fake()
    monkeypatch.setenv("ECHO_KEY", echo.token)
    with pytest.raises(EngineError, match=r"has no model 'gpt-4'. It has: echo"):
        llmlab.connect(echo.url, api_key_env="ECHO_KEY", model="gpt-4")
    with pytest.raises(EngineError, match=r"it is no Ollama\. For OpenAI's API leave `--kind ollama` out"):
        llmlab.connect(echo.url, api_key_env="ECHO_KEY", kind="ollama")
    with pytest.raises(EngineError, match=r"wants a key.*--api-key-env"):
        llmlab.connect(echo.url)
    monkeypatch.setenv("ECHO_KEY", "another-key")
    with pytest.raises(EngineError, match="refuses the key") as caught:
        llmlab.connect(echo.url, api_key_env="ECHO_KEY")
    assert "another-key" not in str(caught.value)


def test_a_server_without_the_trace_that_was_wanted_is_left_again(fake: MakeServed, monkeypatch: pytest.MonkeyPatch):
    echo = fake()
    monkeypatch.setenv("ECHO_KEY", echo.token)
    with pytest.raises(EngineError, match=r"No trace at http://127\.0\.0\.1:9") as kept:
        llmlab.connect(echo.url, api_key_env="ECHO_KEY", trace="http://127.0.0.1:9")
    ours = [one for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == echo.server.port]
    assert not [one for one in ours if one.status == psutil.CONN_ESTABLISHED], kept


def test_waiting_for_a_silent_server_has_an_end(fake: MakeServed, monkeypatch: pytest.MonkeyPatch):
    echo = fake(step_s=5)
    monkeypatch.setenv("ECHO_KEY", echo.token)
    handle = llmlab.connect(echo.url, api_key_env="ECHO_KEY", timeout=0.5)
    started = time.monotonic()
    with pytest.raises(EngineDied, match=r"broke the answer off after 0 tokens"):
        handle.generate("abc")
    assert time.monotonic() - started < 4
