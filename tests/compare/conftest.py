"""Engines without a model for comparisons, and a shell with the magics; all are unloaded at the end of each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llmlab
from llmlab.engines import registry

sys.path.append(str(Path(__file__).resolve().parent))  # engine hosts get this path too
from compare_support import Load, load_engine


@pytest.fixture
def load() -> Iterator[Load]:
    yield load_engine
    registry.unload(all=True)


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
