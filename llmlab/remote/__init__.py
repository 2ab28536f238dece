"""connect(): an engine that runs elsewhere, behind a URL, as a handle like any other.

generate, stream, batch, compare and bench work on it. What only the machine of the engine knows, its steps and its KV
cache, comes where the server sends its trace (connect(..., trace=True)); else it is not seen, and not made up.
"""

from __future__ import annotations

from llmlab.remote.connecting import connect
from llmlab.remote.handle import RemoteHandle
from llmlab.remote.traced import TracedHandle

__all__ = ["RemoteHandle", "TracedHandle", "connect"]
