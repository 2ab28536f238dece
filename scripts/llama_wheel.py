"""The llama-cpp-python wheel of this machine: built from source for its own CPU, never with AMX, then kept in a cache.

Standard library only. This file must not know llmlab, its extras or how packages are installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

# ggml's option -> what /proc/cpuinfo must list for it. AMX is missing on purpose, and the build is not `native`: many
# virtual machines advertise AMX and die with SIGSEGV at the first tile instruction.
GGML_OPTIONS = {
    "GGML_SSE42": {"sse4_2"},
    "GGML_AVX": {"avx"},
    "GGML_AVX2": {"avx2"},
    "GGML_FMA": {"fma"},
    "GGML_F16C": {"f16c"},
    "GGML_BMI2": {"bmi2"},
    "GGML_AVX512": {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"},
    "GGML_AVX512_VBMI": {"avx512vbmi"},
    "GGML_AVX512_VNNI": {"avx512_vnni"},
    "GGML_AVX512_BF16": {"avx512_bf16"},
    "GGML_AVX_VNNI": {"avx_vnni"},
}
NO_COMPILER = (
    "llama.cpp is built here from source, and no C++ compiler was found (looked for c++, g++, clang++): install one"
    " with `sudo apt install build-essential` (Debian, Ubuntu), `sudo dnf install gcc-c++ make` (Fedora) or "
    "`xcode-select --install` (macOS), then repeat the command."
)
LOG_TAIL_LINES = 30


class SetupError(Exception):
    """Set-up cannot go on; the message says what to install or to read."""


def cmake_args(cpuinfo: str | None) -> str:
    """CMake options for a CPU, from the text of its /proc/cpuinfo; None (not x86 Linux) takes llama.cpp's own defaults.

    >>> cmake_args("flags : avx avx2 fma amx_tile").split()[:3]
    ['-DLLAVA_BUILD=OFF', '-DGGML_NATIVE=OFF', '-DGGML_SSE42=OFF']
    """
    options = {"LLAVA_BUILD": False}
    if cpuinfo is not None:
        flags_line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
        flags = set(flags_line.partition(":")[2].split())
        # Every option is spelled out: without `native`, ggml switches AVX2 and its like on by itself.
        options |= {"GGML_NATIVE": False} | {option: needed <= flags for option, needed in GGML_OPTIONS.items()}
    return " ".join(f"-D{name}={'ON' if on else 'OFF'}" for name, on in options.items())


def this_machines_cmake_args() -> str:
    """Options for the CPU this runs on; the user's own CMAKE_ARGS come last, so they win."""
    is_x86_linux = sys.platform == "linux" and platform.machine() == "x86_64"
    ours = cmake_args(Path("/proc/cpuinfo").read_text() if is_x86_linux else None)
    return f"{ours} {os.environ.get('CMAKE_ARGS', '')}".strip()


def cache_folder(version: str, options: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the wheel of this version, platform and set of options is kept. One wheel serves every Python (ctypes)."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(options.encode()).hexdigest()[:10]
    return cache / "llmlab" / "wheels" / f"{version}-{sysconfig.get_platform()}-{digest}"


def build_command(version: str, out: Path) -> list[str]:
    """The command that builds the wheel into `out`; its options travel in CMAKE_ARGS."""
    # pip's own cache of built wheels knows nothing of CMAKE_ARGS: it would hand back a native build of last year.
    pip = [sys.executable, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--no-binary", "llama-cpp-python"]
    return [*pip, "--wheel-dir", str(out), f"llama-cpp-python=={version}"]


def llama_wheel(version: str) -> Path:
    """The wheel for this machine: from the cache, or built into it (minutes, once).

    The cache folder appears in one rename: a build that is killed leaves nothing that could be taken for a wheel.

    Raises: SetupError without a C++ compiler, or when the build fails (with the end of its log).
    """
    options = this_machines_cmake_args()
    folder = cache_folder(version, options)
    if not folder.exists():
        if not (os.environ.get("CXX") or any(map(shutil.which, ("c++", "g++", "clang++")))):
            raise SetupError(NO_COMPILER)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as scratch:
            finished = Path(scratch) / "wheel"
            _build(version, options, finished, log=folder.parent / f"{folder.name}.log")
            try:
                finished.rename(folder)
            except OSError:
                # Another set-up was faster: its wheel is as good as ours.
                if not folder.exists():
                    raise
    return next(folder.glob("*.whl"))


def _build(version: str, options: str, out: Path, log: Path) -> None:
    command = build_command(version, out)
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())} | os.environ | {"CMAKE_ARGS": options}
    print(f"Building llama.cpp for this CPU: once, about 4 minutes on 2 cores. Log: {log}", flush=True)
    print(f"  CMAKE_ARGS={shlex.quote(options)} {shlex.join(command)}", flush=True)
    with log.open("w") as log_file:
        result = subprocess.run(command, env=environment, stdout=log_file, stderr=subprocess.STDOUT)
    if result.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise SetupError(f"{tail}\n\nBuilding llama-cpp-python {version} failed (exit {result.returncode}). Log: {log}")
