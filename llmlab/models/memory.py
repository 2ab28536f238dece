"""How much memory is free: of this process's share of the machine, and of the first GPU.

This file must not import torch or any engine: it is asked before they load.
"""

from __future__ import annotations

import os
from pathlib import Path

_MIB = 1024 * 1024


def free_ram_bytes(cgroup_root: Path = Path("/sys/fs/cgroup"), process_cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of RAM that this process can still take: what the system has, or what its container allows if less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    return min([available, *_cgroup_headrooms(cgroup_root, process_cgroup)])


def _cgroup_headrooms(root: Path, process_cgroup: Path) -> list[int]:
    """What each cgroup around this process leaves, in bytes; [] where nothing limits it, as on macOS."""
    try:
        lines = process_cgroup.read_text().splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: limits of all ancestors hold
            own = root / path.lstrip("/")
            folders = [own, *own.parents][: len(Path(path).parts)] if path != "/" else [root]
            rooms += [_headroom(folder, "memory.max", "memory.current", "inactive_file") for folder in folders]
        elif "memory" in controllers.split(","):
            folder = root / "memory"
            rooms.append(_headroom(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    return [room for room in rooms if room is not None]


def _headroom(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Limit minus use, file cache that can be dropped not counted as use; None without a limit."""
    try:
        maximum, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if maximum == "max":
        return None
    return max(0, int(maximum) - used + int(statistics.get(reclaimable, 0)))


def free_gpu_bytes() -> int | None:
    """Free bytes of the first NVIDIA GPU that this process may use, None without one."""
    import subprocess

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1"):
        return None
    chosen = ["-i", visible.split(",")[0].strip()] if visible else []
    command = ["nvidia-smi", *chosen, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return int(answer.split()[0]) * _MIB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
