"""The cache: whole files or none, once, whatever is killed and whoever asks at the same time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llmlab import models
from llmlab.errors import ModelError
from llmlab.models import store

MAKE = "from llmlab import models; print(models.get('smollm2-135m').gguf({quant!r}))"
COUNTED = """
import time
from llmlab import models
from llmlab.models import gguf_to_hf
write = gguf_to_hf.dequantize
def counted(*arguments, **options):
    print("building", flush=True)
    time.sleep(1)
    write(*arguments, **options)
gguf_to_hf.dequantize = counted
print(models.get({path!r}).gguf("F16"))
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.002)


def written(pattern: str, folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern))


@pytest.mark.slow
def test_a_conversion_killed_half_way_leaves_nothing(own_cache: Path) -> None:
    process = start(MAKE.format(quant="F32"))
    wait_for(lambda: written("*.part", own_cache) > 50_000_000)
    process.kill()
    process.wait()
    assert written("*.part", own_cache) < 539_000_000  # it was half-way
    model = models.get("smollm2-135m")
    assert not model.has_gguf("F32")
    assert list(own_cache.rglob("*.gguf")) == []

    made = model.gguf("F16")  # another file of the same model: what was left is removed all the same
    assert list(own_cache.rglob("*.part")) == []
    assert models.check_gguf(made).tensors


@pytest.mark.slow
def test_the_quantizer_ends_with_the_process_that_started_it(own_cache: Path) -> None:
    models.get("smollm2-135m").gguf("F32")
    process = start(MAKE.format(quant="Q4_K_M"))
    wait_for(lambda: written("*Q4_K_M.gguf.part", own_cache) > 1_000_000)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert written("*Q4_K_M.gguf.part", own_cache) < 105_000_000  # it did not go on to the end
    assert not models.get("smollm2-135m").has_gguf("Q4_K_M")


@pytest.mark.slow
def test_two_processes_at_once_make_one_conversion(tiny_gguf: Path, own_cache: Path) -> None:
    processes = [start(COUNTED.format(path=str(tiny_gguf))) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(word for words in outputs for word in words if word == "building") == ["building"]
    paths = {words[-1] for words in outputs}
    assert len(paths) == 1
    assert models.check_gguf(paths.pop()).tensors


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_a_full_disk_is_named_and_leaves_nothing(own_cache: Path, quant: str) -> None:
    # the system refuses to let any file of the child grow past 50 MB
    limited = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000,) * 2)\n{MAKE.format(quant=quant)}"
    )
    process = start(limited)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "llmlab.errors.ModelError: The disk is full" in log
    assert [path for path in own_cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_room_is_asked_for_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"GB free, this model needs 10000000000\.0 GB.*LLMLAB_CACHE"):
        store.made(tmp_path / "model", lambda part: part.write_text("x"), num_bytes=10**19)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    def build(part: Path) -> None:
        part.mkdir()
        (part / "half").write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        store.made(tmp_path / "model", build)
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


def test_a_write_error_becomes_a_model_error(tmp_path: Path) -> None:
    def build(part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelError, match=r"The disk is full: .*LLMLAB_CACHE"):
        store.made(tmp_path / "model", build)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match=r"Cannot make .*file/cache.*LLMLAB_CACHE"):
        models.get("smollm2-135m").gguf("F32")


def test_what_is_made_is_not_built_again(tmp_path: Path) -> None:
    store.made(tmp_path / "model", lambda part: part.write_text("first"))
    store.made(tmp_path / "model", lambda part: part.write_text("second"))
    assert (tmp_path / "model").read_text() == "first"


def test_the_cache_folder_is_the_variable_or_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    assert store.root() == tmp_path
    monkeypatch.delenv("LLMLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert store.root() == tmp_path / "xdg" / "llmlab"


def test_a_part_in_the_making_is_not_swept(tmp_path: Path) -> None:
    """A process that builds one file does not remove what another builds at the same time."""
    holder = start(
        "import time; from pathlib import Path; from llmlab.models import store\n"
        "def build(part):\n    part.write_text('slow'); print('started', flush=True); time.sleep(60)\n"
        f"store.made(Path({str(tmp_path / 'slow')!r}), build)"
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        store.made(tmp_path / "quick", lambda part: part.write_text("quick"))
        assert (tmp_path / "slow.part").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    store.made(tmp_path / "third", lambda part: part.write_text("third"))
    assert not (tmp_path / "slow.part").exists()
