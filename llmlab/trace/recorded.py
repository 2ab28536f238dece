"""Traces that come with llmlab: real runs of vLLM on an H200, for who has no GPU.

datasets/traces/README.md tells how they were made. This file must not know what is in them.
"""

from __future__ import annotations

from pathlib import Path

from llmlab.errors import TraceError, unknown
from llmlab.trace.recording import Trace

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries them inside the package.
_FOLDERS = (_PACKAGE.parent / "datasets" / "traces", _PACKAGE / "datasets" / "traces")


def recorded(name: str) -> Trace:
    """The recorded trace of that name: "burst_of_64", "chunked_prefill", "preemption", "shared_prefix".

    >>> from llmlab.trace.recorded import recorded
    >>> recorded("preemption")
    Trace(vllm, smollm2-135m, 16 requests, 358 steps)

    Raises: TraceError for an unknown name.
    """
    files = {file.name.partition(".")[0]: file for folder in _FOLDERS for file in sorted(folder.glob("*.jsonl.gz"))}
    if name not in files:
        raise TraceError(unknown("recorded trace", name, files))
    return Trace.load(files[name])
