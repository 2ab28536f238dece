"""One JupyterLab and one headless Chromium for all browser tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from jupyter_lab import Notebook, Server
from playwright.sync_api import BrowserContext, sync_playwright

# No sandbox: tests run as root in containers. The rest keeps it off the network and out of small /dev/shm.
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def find_chromium() -> str | None:
    """$CHROMIUM, or a Chromium or Chrome on the PATH; None: maybe one that playwright has downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def context() -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        path = find_chromium() or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("No Chromium: install the package `chromium`, or type `playwright install chromium`.")
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser.new_context(viewport={"width": 1400, "height": 1000})
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, context: BrowserContext) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("notebooks"))
    yield server
    server.close()


@pytest.fixture
def notebook(server: Server, context: BrowserContext) -> Iterator[Callable[..., Notebook]]:
    """notebook("name.ipynb", *cells) opens a new notebook with these code cells."""
    pages = []

    def open_notebook(name: str, *cells: str) -> Notebook:
        page = context.new_page()
        pages.append(page)
        return Notebook(page, server, server.write(name, *cells))

    yield open_notebook
    for page in pages:
        page.close()
    server.end_kernels(wait=False)
