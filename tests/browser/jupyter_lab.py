"""A JupyterLab server of its own, and a page of it in a browser: what the browser tests drive.

This file must not know llmlab.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page

from tests.local_servers import free_port

START_S = 90
# Nothing that changes by itself: no news, no autosave, every cell in the page.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
}
# Come with the graders that other tests need; a student's JupyterLab has none of them.
NOT_A_STUDENTS = ("@jupyter/nbgrader", "@jupyter-notebook/lab-extension", "ipylab")
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"


class Server:
    """JupyterLab in a folder, with configuration and settings of its own; reads and writes nothing of the user's."""

    def __init__(self, root: Path, theme: str = "JupyterLab Light") -> None:
        self.root, self.port, self.token = root, free_port(), secrets.token_hex(16)
        self._home = Path(tempfile.mkdtemp(prefix="jupyter-"))
        self._write_settings({**SETTINGS, "apputils-extension/themes": {"theme": theme, "adaptive-theme": False}})
        self._disable_extensions()
        self._log = (self._home / "server.log").open("w")
        self._process = subprocess.Popen(
            self._command(), env=self._environment(), stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._wait()

    def write(self, name: str, *cells: str) -> str:
        """A notebook with these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)
        return name

    def url(self, name: str) -> str:
        # ?reset: no tab is left from another test
        return f"http://127.0.0.1:{self.port}/lab/tree/{name}?reset&token={self.token}"

    def start_kernel(self, name: str) -> None:
        """The kernel of a notebook that is about to be opened: it starts while the page is loaded."""
        session = {"path": name, "name": Path(name).name, "type": "notebook", "kernel": {"name": "python3"}}
        self._api("sessions", "POST", json.dumps(session).encode())

    def end_kernels(self, *, wait: bool = True) -> None:
        """All that run now."""
        names = [f"kernels/{kernel['id']}" for kernel in json.loads(self._api("kernels"))]
        threads = [threading.Thread(target=self._api, args=(name, "DELETE")) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads if wait else ():
            thread.join()

    def close(self) -> None:
        if self._process.poll() is None:
            # SIGTERM and time: kernels have sessions of their own, and it is the server that ends them
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _command(self) -> list[str]:
        # --expose-app-in-browser: the page can run JupyterLab's commands and wait for them
        options = ["--no-browser", "--expose-app-in-browser", "--ip=127.0.0.1", f"--port={self.port}"]
        options += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        options += [f"--ServerApp.root_dir={self.root}", *(["--allow-root"] if os.getuid() == 0 else [])]
        return [sys.executable, "-m", "jupyterlab", *options]

    def _environment(self) -> dict[str, str]:
        home = self._home
        own = {
            "JUPYTER_CONFIG_DIR": home,
            "JUPYTERLAB_SETTINGS_DIR": home / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
            "JUPYTER_RUNTIME_DIR": home / "runtime",
            "IPYTHONDIR": home / "ipython",
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**os.environ, **{name: str(folder) for name, folder in own.items()}, "PATH": path}

    def _write_settings(self, settings: dict[str, dict[str, Any]]) -> None:
        for plugin, values in settings.items():
            file = self._home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))

    def _disable_extensions(self) -> None:
        file = self._home / "labconfig" / "page_config.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"disabledExtensions": dict.fromkeys(NOT_A_STUDENTS, True)}))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._api("status")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise RuntimeError("JupyterLab did not start:\n" + (self._home / "server.log").read_text()[-3000:])

    def _api(self, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}/api/{path}?token={self.token}"
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=30) as response:
            return response.read()


class Notebook:
    """An open notebook. Never wait for the network to be idle: JupyterLab polls for ever."""

    def __init__(self, page: Page, server: Server, name: str) -> None:
        self.page, self._server, self._name = page, server, name
        server.start_kernel(name)
        self.reload()

    def reload(self) -> None:
        """Load the page again, with the kernel that it has."""
        self.page.goto(self._server.url(self._name), wait_until="domcontentloaded")
        self.page.wait_for_selector(f"{PANEL} .jp-Notebook .jp-Cell", timeout=60_000)
        # The toolbar says "idle" before there is a kernel, and Run All would open a dialog then.
        self.page.evaluate(
            "async () => { const s = jupyterapp.shell.currentWidget.context.sessionContext; "
            "await s.ready; await s.session.kernel.info; }"
        )

    def run_all(self) -> None:
        """Every cell, and wait until they are done."""
        self._command("notebook:run-all-cells")

    def start_cell(self, index: int) -> None:
        """Run one cell, without waiting for it."""
        self._command("notebook:run-cell", cell=index, wait=False)

    def run_cell(self, index: int) -> None:
        """Run one cell, and wait until it is done."""
        self._command("notebook:run-cell", cell=index)

    def interrupt(self) -> None:
        """The square in the toolbar."""
        self._command("notebook:interrupt-kernel")

    def restart_kernel(self) -> None:
        """Without asking, as the button in the toolbar would."""
        script = "jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
        self.page.evaluate(f"async () => {{ await {script}.restart(); await {script}.info; }}")

    def shut_down_kernel(self) -> None:
        """As "Shut Down Kernel" in the menu does; nothing starts another one."""
        self._command("kernelmenu:shutdown")

    def change_kernel(self) -> None:
        """Another one in place of the one that there is, if there is one, and wait until it answers."""
        self.page.evaluate(
            "async () => { const context = jupyterapp.shell.currentWidget.context.sessionContext; "
            "await context.changeKernel({ name: 'python3' }); await context.session.kernel.info; }"
        )

    def wait_idle(self) -> None:
        script = f"() => document.querySelector('{PANEL} .jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
        self.page.wait_for_function(script, timeout=60_000)

    def output(self, cell: int) -> Locator:
        """All outputs of a code cell."""
        return self.page.locator(f"{PANEL} .jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")

    def saved(self) -> nbformat.NotebookNode:
        """The notebook file, as JupyterLab saves it now."""
        self._command("docmanager:save")
        return nbformat.read(self._server.root / self._name, as_version=4)

    def _command(self, name: str, *, cell: int | None = None, wait: bool = True) -> None:
        # In one go: an output that takes the focus back in between would make its own cell the active one.
        script = (
            "([command, cell, wait]) => { const notebook = jupyterapp.shell.currentWidget.content; "
            "if (cell !== null) notebook.activeCellIndex = cell; "
            "const done = jupyterapp.commands.execute(command).then(() => {}); return wait ? done : undefined; }"
        )
        self.page.evaluate(script, [name, cell, wait])
