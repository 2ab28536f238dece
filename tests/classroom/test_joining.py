"""How a lecturer opens a class in a shell, and how a student joins it in a notebook."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from class_support import MakeClass, tokens_in
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from serve_support import wait_until

import llmlab
from llmlab import cli
from llmlab.classroom.register import Register
from llmlab.errors import LlmlabError
from llmlab.remote import RemoteHandle

ENGINES = str(Path(__file__).resolve().parent.parent / "engines")
Captured = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_a_class_runs_in_a_shell_until_it_is_told_to_end(tmp_path: Path, capsys: Captured):
    code = f"import sys; sys.path.append({ENGINES!r}); from llmlab.cli import main; main()"
    command = [sys.executable, "-c", code, "class", "letters", "-e", "fake_engine:FakeEngine", "--port", "0"]
    command += ["--students", "2", "--folder", "friday"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        url = re.search(r"(http://127\S+:\d+)$", shown, re.M)
        assert url is not None and "letters is open for a class" in shown
        tokens = tokens_in(tmp_path / "friday")
        assert list(tokens) == ["student1", "student2"] and not any(token in shown for token in tokens.values())
        folder = str(tmp_path / "friday")
        cli.main(["class", "--new-token", "student1", "--folder", folder])
        token = capsys.readouterr().out.split()[-1]
        headers, body = {"Authorization": f"Bearer {token}"}, {"prompt": "abc", "max_tokens": 4}
        answer = httpx.post(f"{url[1]}/v1/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["text"] == "abca"
        cli.main(["class", "--add", "late", "--folder", folder])
        cli.main(["class", "--who", url[1], "--folder", folder])
        shown = capsys.readouterr().out
        assert "1 of 3 are there" in shown and re.search(r"^student1 .* 7$", shown, re.M)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "Stopping.\n"
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Which model"),
        (["--new-token", "ada"], "Unknown student 'ada'"),
        (["--remove", "ada"], "Unknown student 'ada'"),
        (["--add", "a,b"], "is no name of a student"),
        (["--who", "http://127.0.0.1:9"], "No class at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], says: str, tmp_path: Path):
    Register(tmp_path / "class")
    with pytest.raises(SystemExit, match=says):
        cli.main(["class", *arguments, "--folder", str(tmp_path / "class")])


@pytest.mark.parametrize("arguments", [["--new-token", "ada"], ["--add", "ada"], ["--who", "http://127.0.0.1:9"]])
def test_a_folder_without_a_class_is_told_and_none_is_begun(arguments: list[str], tmp_path: Path):
    with pytest.raises(SystemExit, match="No class in"):
        cli.main(["class", *arguments, "--folder", str(tmp_path / "clas")])
    assert not (tmp_path / "clas").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_who_is_there_is_told_over_https_to_who_names_the_certificate(
    open_class: MakeClass, tmp_path: Path, capsys: Captured
):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    one = open_class(tls_cert=cert, tls_key=key)
    who = ["class", "--who", one.url, "--folder", str(one.room.register.folder)]
    with pytest.raises(SystemExit, match=r"--tls-cert cert\.pem"):
        cli.main(who)
    cli.main([*who, "--tls-cert", str(cert)])
    assert "0 of 2 are there" in capsys.readouterr().out


def test_a_student_joins_with_one_line_asks_and_sees_own_rows_among_grey_ones(
    open_class: MakeClass, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    one = open_class(step_s=0.002)
    monkeypatch.setenv("LLMLAB_CLASS_KEY", one.tokens["ada"])
    monkeypatch.setenv("LLMLAB_CLASS_URL", one.url)
    far = shell.run_line_magic("llm", "class")
    assert isinstance(far, RemoteHandle)
    assert "is connected" in capsys.readouterr().out
    view = llmlab.watch(far)
    assert view.widget is not None  # a page shows it
    one.ask("bob", "bobs own words", max_tokens=8)
    assert far.generate("adas own words", max_tokens=8).text == "adas own"
    one.ask("ada", "the same ada elsewhere", max_tokens=4)

    def rows() -> list[tuple[bool, int]]:
        story = view.story
        requests = story.requests if story is not None else []
        return [(bool(request.get("other")), request["prompt"]) for request in requests]

    chat = len("<user>adas own words")
    assert wait_until(lambda: len(rows()) == 3)
    assert rows() == [(True, 14), (False, chat), (False, 22)]
    assert "bob" not in repr(view.story.__dict__)
    live = view.story
    assert live is not None
    assert wait_until(lambda: live.requests[1]["pieces"] == list("<user>adas own words"))
    assert live.requests[0]["pieces"] is None
    shown = shell.run_line_magic("llm", "class --show-code")
    assert shown is None
    code = f"llmlab.connect('{one.url}', api_key_env='LLMLAB_CLASS_KEY', trace=True)"
    assert code in capsys.readouterr().out


def test_without_a_url_or_a_token_a_student_is_told_what_to_type(
    open_class: MakeClass, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LLMLAB_CLASS_URL", raising=False)
    monkeypatch.delenv("LLMLAB_CLASS_KEY", raising=False)
    with pytest.raises(UsageError, match="Which class"):
        shell.run_line_magic("llm", "class")
    with pytest.raises(LlmlabError, match="LLMLAB_CLASS_KEY"):
        shell.run_line_magic("llm", f"class {open_class().url}")
