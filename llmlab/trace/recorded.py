"""Traces that come with llmlab: real runs of vLLM, most of them on an H200, for who has no GPU.

datasets/traces/README.md tells how they were made. This file must not know what is in them.
"""

from __future__ import annotations

from pathlib import Path

from llmlab.errors import TraceError, unknown
from llmlab.shipped import shipped
from llmlab.trace.recording import Trace


def recorded(name: str) -> Trace:
    """The recorded trace of that name: "burst_of_64", "chunked_prefill", "preemption", "shared_prefix", ...

    >>> from llmlab.trace.recorded import recorded
    >>> recorded("preemption")
    Trace(vllm, smollm2-135m, 16 requests, 358 steps)

    Raises: TraceError for an unknown name, or when this installation has none.
    """
    files = _files()
    if name not in files:
        raise TraceError(unknown("recorded trace", name, files))
    return Trace.load(files[name])


def recorded_names() -> list[str]:
    """What recorded() takes.

    Raises: TraceError when this installation has none.
    """
    return sorted(_files())


def _files() -> dict[str, Path]:
    try:
        return {file.name.partition(".")[0]: file for file in shipped("traces").glob("*.jsonl.gz")}
    except FileNotFoundError as error:
        raise TraceError(str(error)) from None
