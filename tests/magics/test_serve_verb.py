"""%llm serve: a server beside the notebook, which a rerun finds again and `stop` ends."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import llm

from llmlab.engines.handle import EngineHandle
from llmlab.serve import Server, servers

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    for server in servers():
        server.stop()


def test_it_serves_the_current_engine_and_says_how_to_call_it(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured
):
    server = llm(shell, "serve")
    assert isinstance(server, Server) and server.handle is fake
    shown = capsys.readouterr().out
    assert f"{server.url}/v1" in shown and server.token in shown and "curl" in shown
    headers = {"Authorization": f"Bearer {server.token}"}
    body = {"prompt": "abc", "max_tokens": 3}
    assert httpx.post(f"{server.url}/v1/completions", json=body, headers=headers).json()["choices"][0]["text"] == "abc"
    assert fake.generate("xyz", max_tokens=3).text == "xyz"


@pytest.mark.usefixtures("fake")
def test_running_the_cell_again_keeps_the_server_and_its_token(shell: InteractiveShell):
    first = llm(shell, "serve fake")
    assert llm(shell, "serve fake") is first
    other = llm(shell, "serve fake --max-open 3")
    assert isinstance(first, Server) and isinstance(other, Server)
    assert (first.running, other.running) == (False, True)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("line", ["serve stop", "serve --stop", "serve fake --stop"])
def test_stop_ends_it(shell: InteractiveShell, line: str, capsys: Captured):
    server = llm(shell, "serve")
    llm(shell, line)
    assert isinstance(server, Server) and not server.running
    assert server.url in capsys.readouterr().out.rpartition("stopped")[2]
    llm(shell, line)
    assert "Nothing was served" in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_a_token_from_the_environment_stands_in_no_notebook(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.setenv("CLASS_TOKEN", "a-secret-of-ours")
    llm(shell, "serve --token-env CLASS_TOKEN --show-code")
    shown = capsys.readouterr().out
    assert "a-secret-of-ours" not in shown and "os').environ['CLASS_TOKEN']" in shown
    server = llm(shell, "serve --token-env CLASS_TOKEN")
    assert isinstance(server, Server) and server.token == "a-secret-of-ours"
    assert llm(shell, "serve --token-env CLASS_TOKEN") is server
    shown = capsys.readouterr().out
    assert shown.count("$CLASS_TOKEN") >= 4 and "a-secret-of-ours" not in shown
    with pytest.raises(UsageError, match="no variable 'a-s…'"):
        llm(shell, "serve --token-env a-secret-of-ours")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("serve nobody", "No engine 'nobody'"),
        ("serve --token-env NOT_THERE", "no variable 'NOT_THERE'"),
        ("serve --prt 80", "Did you mean --port"),
    ],
)
def test_what_is_wrong_is_one_line(shell: InteractiveShell, line: str, says: str):
    with pytest.raises(UsageError, match=says):
        llm(shell, line)
