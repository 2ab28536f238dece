"""A real IPython shell with the extension loaded, a real kernel, and an engine without a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from live_kernel import ENGINES, FAKE, Kernel

import llmlab
from llmlab.engines.handle import EngineHandle

if ENGINES not in sys.path:
    sys.path.append(ENGINES)  # engine hosts get this path too


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """A shell without a front end: what it shows is printed."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "llmlab")
    yield shell
    llmlab.unload(all=True)
    llmlab.unload_ipython_extension(shell)
    InteractiveShell.clear_instance()


@pytest.fixture
def fake(shell: InteractiveShell) -> EngineHandle:
    """An engine that answers a prompt by its last letters, over and over."""
    return llmlab.load("letters", engine=FAKE, name="fake", isolation="inline")


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    """A kernel as a front end drives it, with the extension and the engine without a model loaded."""
    kernel = Kernel()
    kernel.run(f"import sys; sys.path.append({ENGINES!r})\n%load_ext llmlab\n%llm load letters -e {FAKE} --as fake")
    yield kernel
    kernel.close()
