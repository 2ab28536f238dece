"""gateway(): one OpenAI-compatible door over several backends: a vLLM server, `llmlab serve`, llama-server, Ollama.

Who gets a request is a decision with a reason, and both are in the log. What the backends say of themselves (who waits,
how full the KV cache is) is part of it. This part must not know notebooks.
"""

from __future__ import annotations

from importlib.util import find_spec

from llmlab.errors import EngineError
from llmlab.language import tr

_NEEDED = {"aiohttp": "aiohttp", "jwt": "pyjwt", "prometheus_client": "prometheus-client", "starlette": "starlette",
           "uvicorn": "uvicorn", "yaml": "pyyaml"}  # fmt: skip
_missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
if _missing:
    raise EngineError(
        tr("{names} is not installed. Type `pip install 'llmlab-kit[gateway]'`.", names=", ".join(_missing))
    )

from llmlab.gateway.log import read_log  # noqa: E402  # they import them
from llmlab.gateway.reading import ConfigError, read_config  # noqa: E402
from llmlab.gateway.server import Gateway, gateway  # noqa: E402

__all__ = ["ConfigError", "Gateway", "gateway", "read_config", "read_log"]
