"""serve(): a loaded engine behind an OpenAI-compatible endpoint, beside the notebook that holds it.

It runs on a thread of this process, because here is the handle: the notebook goes on asking the same engine, and what
clients ask is in the same trace. The work, the engine's, is in another process anyway.
"""

from __future__ import annotations

from importlib.util import find_spec

from llmlab.errors import EngineError
from llmlab.language import tr

_missing = [name for name in ("prometheus_client", "starlette", "uvicorn") if find_spec(name) is None]
if _missing:
    raise EngineError(
        tr("{names} is not installed. Type `pip install 'llmlab-kit[serve]'`.", names=", ".join(_missing))
    )

from llmlab.serve.server import Server, serve, servers  # noqa: E402  # it imports them

__all__ = ["Server", "serve", "servers"]
