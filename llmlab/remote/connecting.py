"""connect(): from a URL to a handle. The server is asked what it is and what it has; nothing is loaded here.

This file must not know what a server says.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

from llmlab.engines.base import EngineConfig
from llmlab.engines.connection import Connection
from llmlab.engines.registry import free_name, register
from llmlab.errors import EngineError, unknown
from llmlab.remote.backend import Backend
from llmlab.remote.handle import RemoteHandle
from llmlab.remote.keys import Key, key_of
from llmlab.remote.link import RemoteLink
from llmlab.trace import Header

KINDS = ("openai", "ollama")
TIMEOUT_S = 120.0
START_S = 30.0


def connect(
    url: str,
    *,
    name: str | None = None,
    kind: str = "openai",
    model: str | None = None,
    api_key_env: str | None = None,
    timeout: float = TIMEOUT_S,
    seed: int = 0,
    ctx: int | None = None,
    keep_alive: str | None = None,
    pull: bool = False,
) -> RemoteHandle:
    """A handle of the engine behind a URL; it is the current engine from then on.

    `kind`: "openai" for every server with OpenAI's API (vLLM, llama-server, `%llm serve`), "ollama" for Ollama's own.
    `model`: the first that the server has, if none is named. `api_key_env`: the environment variable with the key;
    without it, the keyring's for this URL ("llmlab"). `timeout`: how long nothing may come, in seconds. For Ollama
    alone: `ctx`, the context in tokens; `keep_alive`, how long the model stays loaded ("10m"); `pull`, fetch a missing
    model.

    >>> far = llmlab.connect("http://host:8000", api_key_env="KEY")    # doctest: +SKIP

    Raises: EngineError when there is no such server or model, or it wants another key.
    """
    if kind not in KINDS:
        raise EngineError(unknown("kind", kind, KINDS))
    if kind != "ollama" and (pull or ctx is not None or keep_alive is not None):
        raise EngineError("ctx, keep_alive and pull are Ollama's: add `--kind ollama`, or leave them out.")
    url = _plain(url)
    if kind == "ollama" and api_key_env is None and os.environ.get("OLLAMA_API_KEY"):
        api_key_env = "OLLAMA_API_KEY"  # its client sends that one anyway
    key = key_of(url, api_key_env)
    opened = (
        _ollama(url, key, timeout, model, ctx, keep_alive, pull)
        if kind == "ollama"
        else _openai(url, key, timeout, model)
    )
    link = RemoteLink()
    try:
        backend: Backend = link.run(opened)
        about = backend.about
        # llama-server names a model by its file
        model = about.model.rpartition("/")[2] if about.model.startswith("/") else about.model
        config = EngineConfig(engine=kind, model=model, model_path=url, quant=about.quant, seed=seed)
        header = Header(
            engine=about.engine, engine_version=about.version, model=model, quant=about.quant, device=url,
            capabilities=about.capabilities, max_model_len=about.max_model_len,
        )  # fmt: skip
        called = free_name(name, re.sub(r"[^\w.-]+", "-", model.rpartition("/")[2]) or "remote")
        again = f"`%llm connect {url} --kind {kind}`, or llmlab.connect({url!r}, kind={kind!r})"
        connection = Connection(link, describe=f"The connection {called!r} to {url}", reload_line=again)
        link.open(backend, header)
        ready = connection.wait_ready(START_S)
        assert ready is not None  # it was put there
    except BaseException:
        link.close(0.0)
        raise
    handle = RemoteHandle(called, config, connection, ready)
    register(handle)
    return handle


async def _openai(url: str, key: Key, timeout_s: float, model: str | None) -> Backend:
    _require("openai")
    from llmlab.remote.openai_server import OpenaiServer

    server = OpenaiServer(url, key, timeout_s)
    try:
        await server.look(model)
    except BaseException:
        await server.close()
        raise
    return server


async def _ollama(
    url: str, key: Key, timeout_s: float, model: str | None, ctx: int | None, keep_alive: str | None, pull: bool
) -> Backend:
    _require("ollama")
    from llmlab.remote.ollama_server import OllamaServer

    server = OllamaServer(url, key, timeout_s, ctx=ctx, keep_alive=keep_alive)
    try:
        with pull_bar(model or "") as progress:
            await server.look(model, pull=pull, progress=progress)
    except BaseException:
        await server.close()
        raise
    return server


def _require(client: str) -> None:
    if find_spec(client) is None:
        raise EngineError(f"The client {client} is not installed. Type `pip install 'llmlab-kit[connect]'`.")


@contextmanager
def pull_bar(model: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that shows how far a server is with a model; it comes when there is something to show."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(desc=model, unit="B", unit_scale=True, delay=1.0, disable=not watched) as bar:

        def show(status: str, num_done: int, num_bytes: int) -> None:
            if num_bytes and num_bytes != bar.total:  # each file of a model is counted from 0
                bar.reset(num_bytes)
            bar.set_postfix_str(status, refresh=False)
            bar.update(max(0, num_done - bar.n))

        yield show


def _plain(url: str) -> str:
    """Scheme, host and path, without /v1. Raises: EngineError for what is no URL, or has a secret in it."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EngineError(f"{url!r} is no URL of a server. For example: http://127.0.0.1:8000")
    if parts.username or parts.password or parts.query:
        raise EngineError(
            "A URL with a password or parameters would stand in traces. Leave them out, put the key into an "
            "environment variable and name it: `--api-key-env VARIABLE`."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1")
