"""What the machine spends while an engine works: memory, processor time, energy. None where it cannot be read.

This file must not know requests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

SAMPLE_S = 1.0
_MIB = 1024 * 1024
_RAPL = Path("/sys/class/powercap")


@dataclass(slots=True)
class Spent:
    """Between the two ends of one measurement. `cpu_s`: of the engine's processes."""

    duration_s: float = 0.0
    cpu_s: float | None = None
    # of this notebook's process, the generator included; None when the engine lives in it
    notebook_cpu_s: float | None = None
    rss_peak_bytes: int | None = None
    # all memory in use on the GPUs, whoever uses it
    gpu_peak_bytes: int | None = None
    # of the whole machine, whoever used it: processor packages (RAPL) and NVIDIA GPUs, as far as they tell
    energy_j: float | None = None


@contextmanager
def measured(pid: int, rapl: Path = _RAPL) -> Iterator[Spent]:
    """Fills in what process `pid` and its children, and the machine, spend inside the block.

    >>> with measured(os.getpid()) as spent:
    ...     total = sum(range(1_000_000))
    >>> spent.rss_peak_bytes > 1_000_000, spent.notebook_cpu_s
    (True, None)
    """
    spent, over = Spent(), threading.Event()
    gpu = _Gpu()
    engine = _processes(pid)
    sampler = threading.Thread(target=_sample, args=(engine, spent, over), daemon=True)
    cpu_s, own_s, energy_uj, started = _sum(engine, _cpu_s), time.process_time(), _energy_uj(rapl), time.monotonic()
    sampler.start()
    try:
        yield spent
    finally:
        spent.duration_s = time.monotonic() - started
        if (cpu_after_s := _sum(engine, _cpu_s)) is not None and cpu_s is not None:
            spent.cpu_s = cpu_after_s - cpu_s
        if pid != os.getpid():
            spent.notebook_cpu_s = time.process_time() - own_s
        of_packages = _difference_j(energy_uj, _energy_uj(rapl))
        over.set()
        sampler.join()
        spent.gpu_peak_bytes, of_gpus = gpu.close(spent.duration_s)
        known = [joules for joules in (of_packages, of_gpus) if joules is not None]
        spent.energy_j = sum(known) if known else None


def _sample(engine: list[psutil.Process], spent: Spent, over: threading.Event) -> None:
    while True:
        if (rss := _sum(engine, lambda process: process.memory_info().rss)) is not None:
            spent.rss_peak_bytes = max(spent.rss_peak_bytes or 0, int(rss))
        if over.wait(SAMPLE_S):
            return


def _processes(pid: int) -> list[psutil.Process]:
    """An engine's process and its workers (tensor parallel); the children of a notebook are other engines.

    To find children costs as much as 100 samples: once for each measurement.
    """
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process] if pid == os.getpid() else [process, *process.children(recursive=True)]
    return []


def _sum(engine: list[psutil.Process], amount: Callable[[psutil.Process], float]) -> float | None:
    """Over all of its processes; None when one of them has ended."""
    import psutil

    with suppress(psutil.Error):
        return sum(map(amount, engine)) if engine else None
    return None


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _energy_uj(rapl: Path) -> dict[Path, tuple[int, int]]:
    """Counter of each processor package and where it begins again, in microjoules; empty where nobody may read it."""
    found = {}
    for package in sorted(rapl.glob("intel-rapl:[0-9]")):
        with suppress(OSError, ValueError):
            counter, limit = (int((package / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
            found[package] = counter, limit
    return found


def _difference_j(before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]) -> float | None:
    both = before.keys() & after.keys()
    if not both:
        return None
    return sum((after[p][0] - before[p][0]) % max(1, after[p][1]) for p in both) / 1e6


class _Gpu:
    """nvidia-smi, asked five times a second by one long-lived process; silent where there is none."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []  # watts, MiB; of all GPUs together
        command = [
            "nvidia-smi",
            "--query-gpu=index,power.draw,memory.used",
            "--format=csv,noheader,nounits",
            "-lms",
            "200",
        ]
        self._process = None
        if shutil.which("nvidia-smi"):
            with suppress(OSError):
                self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        watts = mib = 0.0
        for number, line in enumerate(self._process.stdout):
            with suppress(ValueError):
                index, power, memory = (float(part) for part in line.split(","))
                if index == 0 and number:
                    self._samples.append((watts, mib))
                    watts = mib = 0.0
                watts, mib = watts + power, mib + memory

    def close(self, duration_s: float) -> tuple[int | None, float | None]:
        """Most memory in use, in bytes; energy, as mean power times `duration_s`, in joules."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if not self._samples:
            return None, None
        mean_w = sum(watts for watts, _ in self._samples) / len(self._samples)
        return int(max(mib for _, mib in self._samples) * _MIB), mean_w * duration_s
