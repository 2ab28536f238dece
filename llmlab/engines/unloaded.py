"""What an engine takes of this machine's memory, and what unloading it gave back. Measured, not estimated.

This file must not know engines.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unloaded:
    """What unload() gave back, measured; all in bytes but ended_in_s."""

    name: str
    # Memory of the engine's process before; of this process, when the engine ran inline.
    rss_before_bytes: int | None
    # 0 when the process has ended.
    rss_after_bytes: int | None
    # What the machine had available before and after. Weights mapped from a file count as available all the time.
    available_before_bytes: int
    available_after_bytes: int
    ended_in_s: float
    # Free memory of the first NVIDIA GPU, None without one.
    gpu_free_before_bytes: int | None = None
    gpu_free_after_bytes: int | None = None

    def __repr__(self) -> str:
        before, after = (_mb(n) for n in (self.rss_before_bytes, self.rss_after_bytes))
        machine = f"{_mb(self.available_before_bytes)} -> {_mb(self.available_after_bytes)} MB available here"
        if self.gpu_free_after_bytes is not None:
            machine += f", {_mb(self.gpu_free_before_bytes)} -> {_mb(self.gpu_free_after_bytes)} MB free on the GPU"
        return f"Unloaded {self.name}: {before} -> {after} MB, {machine}, in {self.ended_in_s:.1f} s"


def rss_bytes(pid: int) -> int | None:
    """Memory that a process holds now; None when there is none."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _mb(num_bytes: int | None) -> str:
    return "–" if num_bytes is None else f"{num_bytes / 1e6:.0f}"
