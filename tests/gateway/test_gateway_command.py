"""`llmlab gateway` in a shell: what it would do, what it says when it cannot, and whom it asks: its backends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from gateway_support import KEYS, TOKENS, Backends, bearer

from llmlab import cli


@pytest.fixture
def config(backends: Backends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable, secret in {**TOKENS, **KEYS}.items():
        monkeypatch.setenv(variable, secret)
    backends.start("main", metrics=b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n")
    backends.start("spare")
    rules = "rules: [{prompt_tokens_over: 2048, use: spare}]"
    text = backends.config(model=rules, of={"main": ", max_waiting: 8"}, ann=", requests_per_minute: 60")
    (tmp_path / "config.yaml").write_text(text)
    return tmp_path / "config.yaml"


def checked(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gateway", str(config), "--check"])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_check_says_what_would_be_done(config: Path, backends: Backends, capsys: pytest.CaptureFixture[str]):
    status, shown = checked(config, capsys)
    assert status == 0
    for line in (
        rf"main +{backends['main'].url} +up +main-model +3 +1 +–",
        "prompt of more than 2,048 tokens: spare first.",
        "Else main, spare, in this order.",
        "main comes last while more than 8 wait there.",
        r"ann +ANN_TOKEN +60 requests a minute",
        r"ben +BEN_TOKEN +anything",
        "✓ All of it is there.",
    ):
        assert re.search(line, shown), f"{line!r} is not in\n{shown}"
    assert not any(secret in shown for secret in (*TOKENS.values(), *KEYS.values()))


def test_check_says_what_is_missing(
    config: Path, backends: Backends, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    backends.stop("spare")
    monkeypatch.delenv("MAIN_KEY")
    config.write_text(config.read_text().replace("main: main-model", "main: another-model"))
    status, shown = checked(config, capsys)
    assert status == 1
    assert "✗ The environment has no MAIN_KEY (backends.main)." in shown
    assert re.search(r"✗ spare at http://127.0.0.1:\d+: connect", shown)
    assert "✗ main has no model 'another-model'. It has main-model." in shown


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("poll_s", "pol_s", r"config.yaml, line \d+: pol_s: Unknown field 'pol_s'.*Did you mean 'poll_s'"),
        ("MAIN_KEY", "NOT_THERE", r"The environment lacks NOT_THERE \(backends.main\)"),
        ("BEN_TOKEN", "ANN_TOKEN", "ann, ben have the same token"),
        ("MAIN_KEY", "hf_sesame", r"The environment lacks hf_… \(backends.main\)"),
        ("MAIN_KEY", "TWO_WORDS", "The key of main has a space in it.*set TWO_WORDS anew"),
    ],
)
def test_what_is_wrong_is_one_line(config: Path, old: str, new: str, says: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWO_WORDS", "sesame open")
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(SystemExit, match=says) as ended:
        cli.main(["gateway", str(config), "--port", "0"])
    assert "sesame" not in str(ended.value)


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_end_and_asks_nobody_but_its_backends(config: Path, backends: Backends):
    watched = (
        "import socket, sys\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        print('asks', args[1] if event == 'socket.connect' else args[:2], file=sys.stderr, flush=True)\n"
        "sys.addaudithook(hook)\n"
        "from llmlab.cli import main; main()"
    )
    command = [sys.executable, "-c", watched, "gateway", str(config), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=config.parent, env=os.environ
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        url = re.search(r"(http://127\S+:\d+)/v1$", shown, re.MULTILINE)
        assert url is not None, shown
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{url[1]}/v1/chat/completions", json=body, headers=bearer("ANN_TOKEN"))
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "Stopping.\n"
        asked = set(re.findall(r"asks \('127.0.0.1', (\d+)", process.stderr.read()))
        assert process.wait(20) == 0
    assert asked == {str(backends[name].port) for name in ("main", "spare")}
    assert (config.parent / "gateway.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_whose_answer_comes_when_it_is_told_to_end_learns_why_it_breaks_off(
    config: Path, backends: Backends, sent: signal.Signals
):
    backends["main"].num_pieces, backends["main"].gap_s = 500, 0.02
    command = [sys.executable, "-c", "from llmlab.cli import main; main()", "gateway", str(config), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=config.parent) as process:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        url = re.search(r"(http://127\S+:\d+)/v1$", shown, re.MULTILINE)
        assert url is not None, shown
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        with httpx.stream("POST", f"{url[1]}/v1/chat/completions", json=body, headers=bearer("ANN_TOKEN")) as answer:
            lines = answer.iter_lines()
            assert "main" in "".join(next(lines) for _ in range(6))
            process.send_signal(sent)
            rest = list(lines)
        assert process.stdout.read() == "Stopping.\n" and process.wait(20) == 0
    assert '"code":"stopped"' in rest[-4] and rest[-2] == "data: [DONE]"
    assert '"error":"stopped"' in (config.parent / "gateway.jsonl").read_text()
