"""`llmlab serve` in a shell, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from serve_support import MakeServed, error_of

import llmlab
from llmlab import cli
from llmlab.errors import EngineError

ENGINES = str(Path(__file__).resolve().parent.parent / "engines")
FEW_FILES = 256  # that a shell lets a process have open
HEALTHY = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "healthy.py"


@contextmanager
def in_a_shell(folder: Path, *flags: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`llmlab serve` with the fake engine, and what it has printed when it serves."""
    few = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({FEW_FILES}, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    code = f"{few}; import sys; sys.path.append({ENGINES!r}); from llmlab.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "letters", "-e", "fake_engine:FakeEngine", "--port", "0", *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, **environ}
    ) as process:
        assert process.stdout is not None
        try:
            yield process, "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        finally:
            process.kill()


def url_in(shown: str) -> str:
    found = re.search(r"(http://127\S+:\d+)/v1$", shown, re.M)
    assert found is not None, shown
    return found[1]


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_end(tmp_path: Path):
    with in_a_shell(tmp_path) as (process, shown):
        token = re.search(r"^token\s+(\S+)$", shown, re.M)
        assert token is not None
        headers, body = {"Authorization": f"Bearer {token[1]}"}, {"prompt": "abc", "max_tokens": 4}
        answer = httpx.post(f"{url_in(shown)}/v1/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["text"] == "abca"
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] > FEW_FILES
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("Stopping.\n", "")
        assert process.returncode == 0


@pytest.mark.slow
def test_when_its_engine_dies_it_ends_so_that_a_supervisor_starts_it_again_and_a_given_token_is_never_printed(
    tmp_path: Path,
):
    with in_a_shell(tmp_path, "--token-env", "MY_TOKEN", MY_TOKEN="sesame-open") as (process, shown):
        assert '"Authorization: Bearer $MY_TOKEN"' in shown and 'os.environ["MY_TOKEN"]' in shown
        [host] = psutil.Process(process.pid).children()
        host.kill()
        said = "".join([shown, *process.communicate(timeout=20)])
        assert process.returncode == 1
        assert "SIGKILL" in said and "sesame-open" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token-env", "NOT_THERE"], "no variable 'NOT_THERE'"),
        (["-e", "vlm"], "Did you mean 'vllm'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str):
    with pytest.raises(SystemExit, match=says):
        cli.main(["serve", "smollm2-135m", *arguments])


def test_who_serves_or_connects_reads_his_language_and_clients_read_english(
    fake: MakeServed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMLAB_LANG", "zh_CN")
    echo = fake()
    assert "echo 已对外提供服务" in str(echo.server.card)
    with pytest.raises(EngineError, match="上没有服务器"):
        llmlab.connect("http://127.0.0.1:9")
    told = error_of(echo.complete("abc", max_token=3))["message"]
    assert told.startswith("Unknown field 'max_token'.") and told.endswith("Did you mean 'max_tokens'?")
    with pytest.raises(EngineError, match="换一个端口"):
        llmlab.serve(echo.handle, port=70_000)


@pytest.mark.parametrize("token", ["right-token", "right-token\n", "wrong-token"])
def test_the_health_check_of_a_container_knows_a_server_that_answers(fake: MakeServed, token: str):
    url = fake(token="right-token").url
    command = [sys.executable, str(HEALTHY), url, "MY_TOKEN"]
    done = subprocess.run(command, env={"MY_TOKEN": token}, capture_output=True, text=True)
    assert (done.returncode == 0) is (token.strip() == "right-token"), done.stderr
    assert token.strip() not in done.stderr
