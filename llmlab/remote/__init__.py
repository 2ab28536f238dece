"""connect(): an engine that runs elsewhere, behind a URL, as a handle like any other.

generate, stream, batch, compare and bench work on it; what only the machine of the engine knows (its steps, its KV
cache) does not come over the wire, and is not made up.
"""

from __future__ import annotations

from llmlab.remote.connecting import connect
from llmlab.remote.handle import RemoteHandle

__all__ = ["RemoteHandle", "connect"]
