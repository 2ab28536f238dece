"""Figures: what a server says of its own load at its /metrics. vLLM's names, llmlab's and llama-server's.

This file must not know HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    rb"^(?:vllm:|llmlab_|llamacpp:)"
    rb"(num_requests_running|requests_processing|num_requests_waiting|requests_deferred"
    rb"|kv_cache_usage_perc|gpu_cache_usage_perc|kv_cache_usage_ratio|engine_up)"
    rb"(?:\{[^}\n]*\})? +(\S+)",
    re.MULTILINE,
)
_RUNNING = ("num_requests_running", "requests_processing")
_WAITING = ("num_requests_waiting", "requests_deferred")
_KV_USE = ("kv_cache_usage_perc", "gpu_cache_usage_perc", "kv_cache_usage_ratio")


@dataclass(frozen=True, slots=True)
class Figures:
    """None: the server does not say. `kv_use`: share of the KV cache in use, of the fullest engine behind it."""

    num_running: int | None = None
    num_waiting: int | None = None
    kv_use: float | None = None
    # whether it has an engine; a server may live on without one
    is_up: bool | None = None


def figures_of(metrics: bytes) -> Figures:
    """From Prometheus' text format. Several engines behind one server are counted together.

    >>> figures_of(b'vllm:num_requests_waiting{engine="0"} 3.0\\nvllm:num_requests_waiting{engine="1"} 2.0\\n')
    Figures(num_running=None, num_waiting=5, kv_use=None, is_up=None)
    """
    found: dict[str, list[float]] = {}
    for match in _LINE.finditer(metrics):
        try:
            found.setdefault(match[1].decode(), []).append(float(match[2]))
        except ValueError:
            continue
    running, waiting, kv_use = (_values(found, names) for names in (_RUNNING, _WAITING, _KV_USE))
    up = found.get("engine_up")
    return Figures(
        int(sum(running)) if running else None,
        int(sum(waiting)) if waiting else None,
        max(kv_use) if kv_use else None,
        all(up) if up else None,
    )


def _values(found: dict[str, list[float]], names: tuple[str, ...]) -> list[float]:
    return next((found[name] for name in names if name in found), [])
