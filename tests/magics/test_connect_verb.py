"""%llm connect: an engine behind a URL answers as one that is loaded, and a rerun replaces the connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import llm

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import Result
from llmlab.errors import EngineError
from llmlab.remote import RemoteHandle, TracedHandle
from llmlab.serve import Server, serve

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def server(fake: EngineHandle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = serve(fake)
    monkeypatch.setenv("FAR_KEY", server.token)
    yield server
    server.stop()


def test_a_connected_engine_answers_prompts(shell: InteractiveShell, server: Server, capsys: Captured):
    far = llm(shell, f"connect {server.url} --api-key-env FAR_KEY --as far")
    assert isinstance(far, RemoteHandle)
    shown = capsys.readouterr().out
    assert "far is connected" in shown and server.url in shown and server.token not in shown
    result = llm(shell, "-n 3 abc")
    assert isinstance(result, Result) and result.text == "abc"
    assert result.header.device == server.url
    llm(shell, "ps")
    assert "far" in capsys.readouterr().out


def test_running_the_cell_again_replaces_the_connection(shell: InteractiveShell, server: Server):
    line = f"connect {server.url} --api-key-env FAR_KEY --as far"
    first = llm(shell, line)
    shell.execution_count += 1
    llm(shell, f"connect {server.url} --api-key-env FAR_KEY")
    shell.execution_count -= 1
    again = llm(shell, line)
    assert isinstance(first, RemoteHandle) and isinstance(again, RemoteHandle)
    assert (first.alive, again.alive, again.name) == (False, True, "far")


def test_the_call_is_printed_without_the_key(shell: InteractiveShell, server: Server, capsys: Captured):
    llm(shell, f"connect {server.url} --api-key-env FAR_KEY --show-code")
    shown = capsys.readouterr().out
    assert f"llmlab.connect('{server.url}', api_key_env='FAR_KEY')" in shown and server.token not in shown


def test_driving_it_is_refused(shell: InteractiveShell, server: Server):
    llm(shell, f"connect {server.url} --api-key-env FAR_KEY")
    with pytest.raises(EngineError, match="needs an engine of your own"):
        llm(shell, "pause")


def test_a_wrong_kind_is_one_line(shell: InteractiveShell):
    with pytest.raises(UsageError, match="--kind takes openai, ollama"):
        llm(shell, "connect http://host --kind olama")


def test_trace_alone_is_the_url_itself_and_with_a_value_another_address(
    shell: InteractiveShell, server: Server, capsys: Captured
):
    far = llm(shell, f"connect {server.url} --api-key-env FAR_KEY --trace --as far")
    shown = capsys.readouterr().out
    assert isinstance(far, TracedHandle) and "Its steps are seen" in shown and "the server's clock" in shown
    llm(shell, "-n 3 abc")
    assert len(far.trace.step_records) > 0 and "r1 finishes" in str(llm(shell, "timeline"))
    llm(shell, f"connect {server.url} --api-key-env FAR_KEY --trace http://h:1 --show-code")
    assert "trace='http://h:1'" in capsys.readouterr().out
