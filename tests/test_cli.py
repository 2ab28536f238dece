"""The `llmlab` command: where the quickstart comes from, what `lab` starts, what `demo` leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import nbformat
import pytest

from llmlab import cli
from llmlab.errors import LlmlabError
from tests.local_servers import free_port


def write_notebook(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose quickstart is one small cell; `llmlab` believes that it was installed from here."""
    root = tmp_path / "checkout"
    write_notebook(root / "notebooks" / "00_quickstart.ipynb", "print(6 * 7)")
    monkeypatch.setattr(cli, "PACKAGE", root / "llmlab")
    return root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_inside_a_checkout_the_quickstart_is_its_own_notebook(checkout: Path):
    assert cli.find_quickstart(checkout) == checkout / "notebooks" / "00_quickstart.ipynb"


def test_elsewhere_the_quickstart_is_a_copy(checkout: Path, elsewhere: Path):
    copy = cli.find_quickstart(elsewhere)
    assert copy == elsewhere / "00_quickstart.ipynb"
    assert copy.read_bytes() == (checkout / "notebooks" / "00_quickstart.ipynb").read_bytes()


def test_a_copy_with_the_users_work_is_not_overwritten(checkout: Path, elsewhere: Path):
    mine = write_notebook(elsewhere / "00_quickstart.ipynb", "my_work = 1")
    before = mine.read_bytes()
    assert cli.find_quickstart(elsewhere) == mine
    assert mine.read_bytes() == before


def test_an_installed_wheel_copies_the_notebook_it_carries(checkout: Path, elsewhere: Path):
    shipped = checkout / "llmlab" / "notebooks" / "00_quickstart.ipynb"
    shipped.parent.mkdir(parents=True)
    (checkout / "notebooks" / "00_quickstart.ipynb").rename(shipped)
    assert cli.find_quickstart(elsewhere).read_bytes() == shipped.read_bytes()


def test_without_any_notebook_the_error_says_where_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "PACKAGE", tmp_path / "site-packages" / "llmlab")
    with pytest.raises(LlmlabError, match="Clone the repository"):
        cli.find_quickstart(tmp_path)


def test_lab_hands_unknown_options_to_jupyterlab(checkout: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append(command))
    monkeypatch.chdir(elsewhere)
    cli.main(["lab", "--port", "9123"])
    [command] = started
    assert command[-2:] == ["--port", "9123"]
    assert f"--ServerApp.root_dir={elsewhere.resolve()}" in command
    assert "--LabApp.default_url=/lab/tree/00_quickstart.ipynb" in command


def test_other_commands_refuse_unknown_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--port", "9123"])
    assert "unknown option '--port' for `llmlab demo`" in capsys.readouterr().err


def no_browser(*_: object) -> None:
    raise webbrowser.Error("could not locate runnable browser")


def test_without_a_browser_jupyterlab_is_told_so(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = cli.find_quickstart(checkout)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "get", no_browser)
    assert "--no-browser" in cli.lab_command(notebook, checkout)
    monkeypatch.setattr(webbrowser, "get", lambda: "firefox")
    assert "--no-browser" not in cli.lab_command(notebook, checkout)


def status_of(url: str) -> int:
    """The answer's status. JupyterLab prints its URL a moment before it listens: keep knocking for 30 s."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(url, timeout=30).status
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.slow
def test_lab_prints_a_url_that_opens_the_quickstart(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(checkout / variable))
    port = free_port()
    command = cli.lab_command(cli.find_quickstart(checkout), checkout, ["--no-browser", f"--port={port}"])
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=checkout)
    try:
        assert server.stderr is not None
        urls = (re.search(r"http://127\S+", line) for line in server.stderr)
        url = next(match[0] for match in urls if match)
        assert url.startswith(f"http://127.0.0.1:{port}/lab/tree/notebooks/00_quickstart.ipynb?token=")
        assert status_of(url) == 200
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)


@pytest.mark.slow
def test_demo_leaves_a_page_with_the_outputs_and_the_notebook_as_it_was(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    notebook = checkout / "notebooks" / "00_quickstart.ipynb"
    before = notebook.read_bytes()
    monkeypatch.chdir(checkout)
    cli.main(["demo"])
    page = checkout / "build" / "quickstart.html"
    assert "<pre>42" in page.read_text()
    assert str(page) in capsys.readouterr().out
    assert notebook.read_bytes() == before


@pytest.mark.slow
def test_demo_stops_at_a_failing_cell_and_leaves_no_page(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    write_notebook(checkout / "notebooks" / "00_quickstart.ipynb", "1 / 0")
    monkeypatch.chdir(checkout)
    with pytest.raises(SystemExit, match=r"(?s)00_quickstart.ipynb stopped at a cell.*ZeroDivisionError"):
        cli.main(["demo"])
    assert not (checkout / "build").exists()
