"""What the tests of several parts share. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


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
