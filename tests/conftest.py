"""What the tests of several parts share. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
import spreading
from hypothesis import settings

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llmlab.engines.both import Both

# How many examples a property is tried on. All properties belong to the soak, in full.
settings.register_profile("test", max_examples=50, stateful_step_count=30, deadline=None)
settings.register_profile("soak", max_examples=2000, stateful_step_count=50, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    """Tests that run side by side share the cores: an engine takes as many threads as its process may use."""
    config.pluginmanager.register(spreading)
    # Hundreds of processes are started, and each would compile all that it imports: 20 s of every vLLM.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    settings.load_profile("soak" if config.option.markexpr == "soak" else "test")
    worker, num_workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) :: num_workers] or cores
        os.sched_setaffinity(0, own)
    # Begun in the background of a shell, a program ignores Ctrl-C, and so do the kernels that it starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _lent() -> Iterator[list[Both]]:
    """What `both` lends, the last one in use; unloaded at the end of the session."""
    pairs: list[Both] = []
    yield pairs
    for vllm, llamacpp in pairs:
        pid, given_back = vllm.pid, vllm.unload()
        assert not psutil.pid_exists(pid) and given_back.rss_before_bytes > 500e6 and given_back.rss_after_bytes == 0
        llamacpp.unload()


@pytest.fixture(scope="module")
def both(_lent: list[Both]) -> Iterator[Both]:
    """vLLM and llama.cpp with the embedded model in float32, each in its host, as load() leaves them.

    One pair for all files of a worker; between them nobody finds it among the loaded engines.
    """
    import llmlab
    from llmlab.engines import registry
    from llmlab.engines.packages import missing

    if (lack := missing("vllm")) or (lack := missing("llamacpp")):
        pytest.skip(lack)
    if not (_lent and all(handle.alive for handle in _lent[-1])):
        room = {"ctx": 1024, "kv_tokens": 1024, "seqs": 8, "step_tokens": 128}
        _lent.append(llmlab.load("smollm2-135m", engine="both", options={"threads": 1}, **room))
    for handle in _lent[-1]:
        registry.register(handle)
    yield _lent[-1]
    for handle in _lent[-1]:
        registry._handles.pop(handle.name, None)


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
