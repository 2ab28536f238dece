"""How many threads an engine gets when nobody says. This file must not know any engine."""

from __future__ import annotations

import os

import psutil


def num_cpus() -> int:
    """CPUs that this process may use, hyperthreads among them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Physical cores that this process may use; hyperthreads only slow the matrix products down."""
    return max(1, min(num_cpus(), psutil.cpu_count(logical=False) or num_cpus()))
