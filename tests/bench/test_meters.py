"""What a measurement cost: this process as the engine, and counters of energy in a folder of our own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmlab.bench.meters import measured


def counter(rapl: Path, number: int, microjoules: int) -> None:
    folder = rapl / f"intel-rapl:{number}"
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_the_sum_over_processor_packages_also_when_a_counter_begins_again(tmp_path: Path):
    counter(tmp_path, 0, 5_000_000)
    counter(tmp_path, 1, 999_000_000)
    with measured(os.getpid(), tmp_path) as spent:
        counter(tmp_path, 0, 7_500_000)  # 2.5 J
        counter(tmp_path, 1, 500_000)  # over the end: 1.5 J
    assert spent.energy_j == pytest.approx(4.0)


def test_energy_that_nobody_may_read_is_none_and_not_0(tmp_path: Path):
    with measured(os.getpid(), tmp_path) as spent:
        pass
    assert spent.energy_j is None and spent.gpu_peak_bytes is None


@pytest.mark.slow
def test_memory_and_processor_time_are_those_of_the_engines_process(tmp_path: Path):
    code = (
        "import time; x = bytearray(80_000_000); end = time.process_time() + 0.3\n"
        "while time.process_time() < end: pass\n"
        "time.sleep(60)"
    )
    engine = subprocess.Popen([sys.executable, "-c", code])
    try:
        with measured(engine.pid, tmp_path) as spent:
            time.sleep(2.5)
    finally:
        engine.kill()
        engine.wait()
    assert spent.rss_peak_bytes > 80_000_000 and spent.duration_s >= 2.5
    assert 0.1 < spent.cpu_s < 1.0 and spent.notebook_cpu_s < 0.5


def test_an_engine_that_has_died_leaves_what_is_not_known_at_none(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    with measured(gone.pid, tmp_path) as spent:
        pass
    assert spent.cpu_s is None and spent.rss_peak_bytes is None
