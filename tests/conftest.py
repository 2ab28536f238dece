"""What the tests of several parts share. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def pytest_configure() -> None:
    """Tests that run side by side share the cores: an engine takes as many threads as its process may use."""
    worker, num_workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) :: num_workers] or cores
        os.sched_setaffinity(0, own)
    # Begun in the background of a shell, a program ignores Ctrl-C, and so do the kernels that it starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """A shell without a front end: what it shows is printed. What was loaded in it is unloaded."""
    from IPython.core.interactiveshell import InteractiveShell

    import llmlab

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmlab")
    yield shell
    llmlab.unload(all=True)
    llmlab.unload_ipython_extension(shell)
    InteractiveShell.clear_instance()
