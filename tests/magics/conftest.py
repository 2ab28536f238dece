"""A real kernel with the extension loaded, and engines without a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from live_kernel import ENGINES, FAKE, Kernel
from verb_support import PARITY, PARITY_FOLDER

import llmlab
from llmlab.engines.handle import EngineHandle

for folder in (ENGINES, PARITY_FOLDER):
    if folder not in sys.path:
        sys.path.append(folder)  # engine hosts get this path too


@pytest.fixture
def fake(shell: InteractiveShell) -> EngineHandle:
    """An engine that answers a prompt by its last letters, over and over."""
    return llmlab.load("letters", engine=FAKE, name="fake", isolation="inline")


@pytest.fixture
def ab(shell: InteractiveShell) -> None:
    """Two engines with logits, `a` and `b`; the current one is `b`."""
    for name in "ab":
        llmlab.load("m", PARITY, name=name, isolation="inline")


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    """A kernel as a front end drives it, with the extension and the engine without a model loaded."""
    kernel = Kernel()
    kernel.run(f"import sys; sys.path.append({ENGINES!r})\n%load_ext llmlab\n%llm load letters -e {FAKE} --as fake")
    yield kernel
    kernel.close()
