"""Traces that come with llmlab: real runs of vLLM on an H200, for who has no GPU.

datasets/traces/README.md tells how they were made. This file must not know what is in them.
"""

from __future__ import annotations

from llmlab.errors import TraceError, unknown
from llmlab.shipped import shipped
from llmlab.trace.recording import Trace


def recorded(name: str) -> Trace:
    """The recorded trace of that name: "burst_of_64", "chunked_prefill", "preemption", "shared_prefix".

    >>> from llmlab.trace.recorded import recorded
    >>> recorded("preemption")
    Trace(vllm, smollm2-135m, 16 requests, 358 steps)

    Raises: TraceError for an unknown name, or when this installation has none.
    """
    try:
        files = {file.name.partition(".")[0]: file for file in shipped("traces").glob("*.jsonl.gz")}
    except FileNotFoundError as error:
        raise TraceError(str(error)) from None
    if name not in files:
        raise TraceError(unknown("recorded trace", name, files))
    return Trace.load(files[name])
