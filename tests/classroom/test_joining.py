"""How a lecturer opens a class in a shell, and how a student joins it in a notebook."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
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
        assert list(tokens) == ["student001", "student002"] and not any(token in shown for token in tokens.values())
        folder = str(tmp_path / "friday")
        cli.main(["class", "--new-token", "student001", "--folder", folder])
        token = capsys.readouterr().out.split()[-1]
        headers, body = {"Authorization": f"Bearer {token}"}, {"prompt": "abc", "max_tokens": 4}
        answer = httpx.post(f"{url[1]}/v1/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["text"] == "abca"
        cli.main(["class", "--add", "late", "--folder", folder])
        cli.main(["class", "--who", url[1], "--folder", folder])
        shown = capsys.readouterr().out
        assert "1 of 3 are there" in shown and re.search(r"^student001 .* 7$", shown, re.M)
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
        (["smollm2-135m", "--students", "nowhere.txt"], "'nowhere.txt' cannot be read"),
        (["smollm2-135m", "--students", ""], "'' cannot be read"),
        (["smollm2-135m", "--in-flight", "0"], "in_flight is 0; it is 1 or more"),
        (["smollm2-135m", "--tokens-per-hour", "0"], "tokens_per_hour is 0"),
        (["--who", "gpu.example.org:8443"], "'gpu.example.org:8443' is no URL of a class"),
        (["--who", "https://a b"], "No class at https://a b"),
        (["--who", "https://127.0.0.1:9", "--tls-cert", "nowhere.pem"], "nowhere.pem is no certificate"),
        (["--who", "http://127.0.0.1:9"], "No class at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], says: str, tmp_path: Path, capsys: Captured):
    Register(tmp_path / "class")
    with pytest.raises(SystemExit, match=says):
        cli.main(["class", *arguments, "--folder", str(tmp_path / "class")])
    assert "Loading" not in capsys.readouterr().out


class NoHttp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(2**16)
        self.request.sendall(b"220 mail.example.org\r\n\r\n")


def test_a_server_that_is_no_class_is_told(tmp_path: Path):
    Register(tmp_path / "class")
    with socketserver.TCPServer(("127.0.0.1", 0), NoHttp) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(SystemExit, match=f"No class at {url} \\(220 mail.example.org"):
            cli.main(["class", "--who", url, "--folder", str(tmp_path / "class")])


def test_who_is_in_already_is_not_told_of_a_token_that_is_not_in_the_list(tmp_path: Path, capsys: Captured):
    add = ["class", "--add", "ada", "--folder", str(tmp_path / "class")]
    Register(tmp_path / "class")
    cli.main(add)
    (tmp_path / "class" / "tokens.csv").unlink()  # handed out
    cli.main(add)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ada is in. The token is in") and "ada was in already, and keeps the token" in second


def test_the_card_of_a_class_says_what_students_type_and_who_is_missing(open_class: MakeClass):
    one = open_class(host="0.0.0.0", students=())
    shown, url = str(one.room.card), f"http://{socket.gethostname()}:{one.room.port}"
    assert f"%llm class {url}`" in shown and f"--who {url} " in shown and "0.0.0.0" not in shown
    assert "Nobody is in it yet: `llmlab class --add NAME --folder" in shown and "tokens.csv" not in shown
    one.room.add("ada")
    shown = str(one.room.card)
    assert "Nobody is in it" not in shown and "tokens.csv" in shown


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
    command += ["-days", "1", "-subj", "/CN=llmlab", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    one = open_class(tls_cert=cert, tls_key=key)
    who = ["class", "--who", one.url, "--folder", str(one.room.register.folder)]
    with pytest.raises(SystemExit, match=r"--tls-cert cert\.pem"):
        cli.main(who)
    cli.main([*who, "--tls-cert", str(cert)])
    assert "0 of 2 are there" in capsys.readouterr().out
    # signed by somebody whose own certificate is not at hand
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 1 -subj /CN=university",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out ask.pem -subj /CN=llmlab -addext subjectAltName=IP:127.0.0.1",
        "x509 -req -in ask.pem -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -days 1 -out cert.pem",
    ):
        subprocess.run(["openssl", *line.split()], check=True, capture_output=True, cwd=tmp_path)
    room = llmlab.classroom(one.handle, folder=one.room.register.folder, tls_cert=cert, tls_key=key)
    who[2] = room.url
    cli.main([*who, "--tls-cert", str(cert)])
    assert "0 of 2 are there" in capsys.readouterr().out
    who[2] = room.url.replace("127.0.0.1", "localhost") + "/v1"
    with pytest.raises(SystemExit, match=r"is for another name .*certificate is not valid for 'localhost'"):
        cli.main([*who, "--tls-cert", str(cert)])


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
