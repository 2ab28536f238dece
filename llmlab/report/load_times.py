"""How long an engine takes to load: with its weights on the disk only (cold), and in memory from the last time (warm).

This file must not know benchmarks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load_again
from llmlab.engines.unloaded import rss_bytes
from llmlab.errors import LlmlabError
from llmlab.models.memory import free_ram_bytes

# Weights that are loaded already cannot be thrown out of memory: a copy is made, if it is no larger than this.
MAX_COPY_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Seconds from the order to load until the engine was ready, and until a first token. None: not measured."""

    cold_s: float | None = None
    cold_first_token_s: float | None = None
    warm_s: float | None = None
    warm_first_token_s: float | None = None
    # why something was not measured
    note: str = ""


def load_times(handle: EngineHandle) -> LoadTimes:
    """Load the same engine twice more, beside the one that is there, and end it again.

    Cold: the weights come from the disk, everything else (Python, libraries) is in memory as it was. Only where the
    operating system can be told to forget a file (Linux), and the weights are small enough for a copy.
    """
    needed = rss_bytes(handle.pid) or 0
    if needed > free_ram_bytes():
        return LoadTimes(note="there is no room to load it a second time")
    warm_s = warm_first_s = cold_s = cold_first_s = None
    note = ""
    try:
        warm_s, warm_first_s = _timed(handle, None)
        with _forgotten_copy(Path(handle.config.model_path)) as copy:
            if copy is None:
                note = "cold: its weights cannot be copied and forgotten here"
            else:
                cold_s, cold_first_s = _timed(handle, str(copy))
    except (LlmlabError, OSError) as error:
        note = str(error).splitlines()[0]
    return LoadTimes(cold_s, cold_first_s, warm_s, warm_first_s, note)


def _timed(handle: EngineHandle, model_path: str | None) -> tuple[float, float]:
    started = time.monotonic()
    again = load_again(handle, model_path=model_path)
    ready_s = time.monotonic() - started
    try:
        again.generate("Hello", max_tokens=1)
        return ready_s, time.monotonic() - started
    finally:
        again.unload()


@contextmanager
def _forgotten_copy(path: Path) -> Iterator[Path | None]:
    """A copy of a model's file or folder that is on the disk and not in memory; None where that cannot be had."""
    files = [path] if path.is_file() else sorted(each for each in path.glob("*") if each.is_file())
    size = sum(file.stat().st_size for file in files)
    if not hasattr(os, "posix_fadvise") or not 0 < size <= MAX_COPY_BYTES or size > shutil.disk_usage(path).free:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="llmlab-cold-", dir=path.parent) as scratch:
        copies = [Path(shutil.copy(file, scratch)) for file in files]
        for copy in copies:
            with open(copy, "rb+") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield copies[0] if path.is_file() else Path(scratch)
