"""`llmlab serve` in a shell, and what it says when it cannot."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmlab import cli

ENGINES = str(Path(__file__).resolve().parent.parent / "engines")


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_end(tmp_path: Path):
    code = f"import sys; sys.path.append({ENGINES!r}); from llmlab.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "letters", "-e", "fake_engine:FakeEngine", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        url, token = re.search(r"(http://127\S+:\d+)/v1$", shown, re.M), re.search(r"^token\s+(\S+)$", shown, re.M)
        assert url is not None and token is not None
        headers, body = {"Authorization": f"Bearer {token[1]}"}, {"prompt": "abc", "max_tokens": 4}
        answer = httpx.post(f"{url[1]}/v1/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["text"] == "abca"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "Stopping.\n"
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token-env", "NOT_THERE"], "no variable 'NOT_THERE'"),
        (["-e", "vlm"], "Did you mean 'vllm'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=says):
            cli.main(["serve", "smollm2-135m", *arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
