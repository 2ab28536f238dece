"""How many threads an engine gets when nobody says. This file must not know any engine."""

from __future__ import annotations

import os

import psutil


def default_threads() -> int:
    """Physical cores that this process may use; hyperthreads only slow the matrix products down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
