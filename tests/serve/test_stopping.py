"""What ends a command that serves, and what is told before it loads anything."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llmlab import cli
from llmlab.errors import EngineError
from llmlab.serve.listening import tls_files
from llmlab.serve.stopping import ENDS, ended_by_signals

ENGINES = str(Path(__file__).resolve().parent.parent / "engines")
Captured = pytest.CaptureFixture[str]


@contextmanager
def begun(folder: Path, until: str) -> Iterator[subprocess.Popen[str]]:
    """`llmlab serve` with the fake engine, when it has printed that line."""
    code = f"import sys; sys.path.append({ENGINES!r}); from llmlab.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "letters", "-e", "fake_engine:FakeEngine", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            assert until in iter(process.stdout.readline, "")
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("until", ["Loading letters.\n", "Ctrl-C ends it.\n"])
def test_who_presses_ctrl_c_again_while_it_loads_or_stops_sees_no_traceback(tmp_path: Path, until: str):
    with begun(tmp_path, until) as process:
        for _ in range(3):  # as a terminal does it: to the engine as well
            os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=20)
        assert (said.endswith("Stopping.\n"), errors, process.returncode) == (True, "", 0)


@pytest.mark.slow
@pytest.mark.parametrize("sees_it", [True, False])
def test_when_its_terminal_goes_away_it_ends_as_it_does_by_ctrl_c(tmp_path: Path, sees_it: bool):
    with begun(tmp_path, "Ctrl-C ends it.\n") as process:
        assert process.stdout is not None
        [engine] = psutil.Process(process.pid).children()
        if not sees_it:
            process.stdout.close()
        process.send_signal(signal.SIGHUP)
        if sees_it:
            assert process.stdout.read() == "Stopping.\n"
        assert (process.wait(20), engine.is_running()) == (0, False)


def test_only_the_first_signal_is_heard_and_where_none_came_all_is_as_before():
    before = [signal.getsignal(number) for number in ENDS]
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) not in (*before, signal.SIG_IGN)
    assert [signal.getsignal(number) for number in ENDS] == before
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGTERM)
        for number in ENDS:
            signal.raise_signal(number)
    finally:
        for number, how in zip(ENDS, before, strict=True):
            signal.signal(number, how)


def test_a_job_in_the_background_goes_on_hearing_no_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", [["serve"], ["class", "--students", "2"]])
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "TAKEN"], "Nothing can listen at 127.0.0.1"),
        (["--tls-cert", "nowhere.pem", "--tls-key", "nowhere.pem"], "nowhere.pem cannot be read"),
        (["--max-open", "0"], "max_open is 0; it is 1 or more"),
    ],
)
def test_what_would_not_do_is_told_before_a_model_is_loaded(
    command: list[str], flags: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = [flag.replace("TAKEN", str(taken.getsockname()[1])) for flag in flags]
        with pytest.raises(SystemExit, match=says):
            cli.main([*command, "smollm2-135m", *flags])
    assert "Loading" not in capsys.readouterr().out
    assert not (tmp_path / "class" / "tokens.csv").exists()  # who was to be in it is not in the next one


@pytest.mark.parametrize(
    ("token", "says"), [("short", "8 or more plain characters"), (" \n", "no variable 'MY_TOKEN'")]
)
def test_a_token_that_will_not_do_is_told_before_a_model_is_loaded(
    token: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.setenv("MY_TOKEN", token)
    with pytest.raises(SystemExit, match=says):
        cli.main(["serve", "smollm2-135m", "--token-env", "MY_TOKEN"])
    assert "Loading" not in capsys.readouterr().out


def test_a_token_in_place_of_the_name_of_its_variable_is_not_repeated():
    with pytest.raises(SystemExit, match="no variable 'ses…'") as ended:
        cli.main(["serve", "smollm2-135m", "--token-env", "sesame-open"])
    assert "sesame-open" not in str(ended.value)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem and key.pem; other.pem, the key of another one; locked.pem, key.pem with a password."""
    folder = tmp_path_factory.mktemp("pem")
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost",
        "genpkey -algorithm RSA -out other.pem",
        "pkey -in key.pem -aes256 -passout pass:sesame -out locked.pem",
    ):
        subprocess.run(["openssl", *line.split()], check=True, capture_output=True, cwd=folder)
    return folder


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        ("cert.pem", "other.pem", "other.pem is not the key of .*cert.pem"),
        ("cert.pem", "nowhere.pem", r"nowhere.pem cannot be read \(No such file or directory\)"),
        ("key.pem", "cert.pem", "key.pem is no certificate in PEM form.*--tls-cert"),
        ("cert.pem", "cert.pem", "cert.pem is no key in PEM form.*--tls-key"),
        ("cert.pem", "locked.pem", "locked.pem has a password.*openssl pkey -in .*locked.pem"),
    ],
)
def test_which_file_of_a_certificate_will_not_do_is_told(pem: Path, cert: str, key: str, says: str):
    assert set(tls_files(pem / "cert.pem", pem / "key.pem")) == {"ssl_certfile", "ssl_keyfile"}
    with pytest.raises(EngineError, match=says):
        tls_files(pem / cert, pem / key)
