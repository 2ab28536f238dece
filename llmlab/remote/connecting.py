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

from llmlab.engines.base import EngineConfig
from llmlab.engines.connection import Connection
from llmlab.engines.registry import free_name, register
from llmlab.engines.trace_listener import TOKEN
from llmlab.errors import EngineError, unknown
from llmlab.language import tr
from llmlab.remote.address import base_of, has_secret, parts_of
from llmlab.remote.backend import About, Backend
from llmlab.remote.handle import RemoteHandle
from llmlab.remote.keys import Key, key_of
from llmlab.remote.link import RemoteLink
from llmlab.remote.seen import follow, traced_header
from llmlab.remote.traced import TracedHandle
from llmlab.remote.whose import Whose
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
    trace: bool | str = False,
    trace_token_env: str | None = None,
) -> RemoteHandle:
    """A handle of the engine behind a URL; it is the current engine from then on.

    `kind`: "openai" for every server with OpenAI's API (vLLM, llama-server, `%llm serve`), "ollama" for Ollama's own.
    `model`: the first that the server has, if none is named. `api_key_env`: the environment variable with the key;
    without it, the keyring's for this URL ("llmlab"). `timeout`: how long nothing may come, in seconds. For Ollama
    alone: `ctx`, the context in tokens; `keep_alive`, how long the model stays loaded ("10m"); `pull`, fetch a missing
    model.

    `trace`: see the server's own steps and KV cache, a TracedHandle; where the trace is, True for the same URL (`%llm
    serve`). `trace_token_env`: the environment variable with the token of the trace; without it that is the key, at
    another address LLMLAB_TRACE_TOKEN or the keyring's.

    >>> far = llmlab.connect("http://host:8000", api_key_env="KEY")    # doctest: +SKIP
    >>> far = llmlab.connect("http://host:8000", trace="http://host:8100")    # doctest: +SKIP

    Raises: EngineError when there is no such server, model or trace, or it wants another key.
    """
    if kind not in KINDS:
        raise EngineError(unknown("kind", kind, KINDS))
    if kind != "ollama" and (pull or ctx is not None or keep_alive is not None):
        raise EngineError(tr("ctx, keep_alive and pull are Ollama's: add `--kind ollama`, or leave them out."))
    if kind == "ollama" and trace:
        raise EngineError(tr("Ollama tells nothing of its steps: leave --trace out."))
    url = _plain(url)
    if kind == "ollama" and api_key_env is None and os.environ.get("OLLAMA_API_KEY"):
        api_key_env = "OLLAMA_API_KEY"  # its client sends that one anyway
    key, whose = key_of(url, api_key_env), Whose()
    opened = (
        _ollama(url, key, timeout, model, ctx, keep_alive, pull)
        if kind == "ollama"
        else _openai(url, key, timeout, model, whose.mark if trace else "")
    )
    link, followed = RemoteLink(), None
    try:
        header = _header(link.meet(opened).about, url)
        if trace:
            address = url if trace is True else _plain(trace)
            followed = follow(address, _token_of(address, url, key, trace_token_env), whose)
            header = traced_header(header, followed[0].segments.header)
        config = EngineConfig(engine=kind, model=header.model, model_path=url, quant=header.quant, seed=seed)
        called = free_name(name, re.sub(r"[^\w.-]+", "-", header.model.rpartition("/")[2]) or "remote")
        again = f"`%llm connect {url} --kind {kind}`, or llmlab.connect({url!r}, kind={kind!r})"
        connection = Connection(link, describe=f"The connection {called!r} to {url}", reload_line=again)
        link.open(header)
        ready = connection.wait_ready(START_S)
        assert ready is not None  # it was put there
    except BaseException:
        link.close(0.0)
        if followed is not None:
            followed[1].close()
        raise
    parts = (called, config, connection, ready)
    handle = RemoteHandle(*parts) if followed is None else TracedHandle(*parts, *followed)
    register(handle)
    return handle


def _header(about: About, url: str) -> Header:
    """What is known of a server that shows no steps."""
    # llama-server names a model by its file
    model = about.model.rpartition("/")[2] if about.model.startswith("/") else about.model
    return Header(
        engine=about.engine, engine_version=about.version, model=model, quant=about.quant, device=url,
        capabilities=about.capabilities, max_model_len=about.max_model_len,
    )  # fmt: skip


def _token_of(address: str, url: str, key: Key, variable: str | None) -> Key:
    """The token of a trace. A key goes nowhere but to the server that it is for."""
    if variable is not None:
        return key_of(address, variable)
    if address == url:
        return key
    return key_of(address, TOKEN if os.environ.get(TOKEN) else None)


async def _openai(url: str, key: Key, timeout_s: float, model: str | None, mark: str) -> Backend:
    _require("openai")
    from llmlab.remote.openai_server import OpenaiServer

    server = OpenaiServer(url, key, timeout_s, mark=mark)
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
        raise EngineError(
            tr("The client {name} is not installed. Type `pip install 'llmlab-kit[connect]'`.", name=client)
        )


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
    if has_secret(url):
        raise EngineError(
            tr(
                "A URL with a password or parameters would stand in traces. Leave them out, put the key into an "
                "environment variable and name it: `--api-key-env VARIABLE`."
            )
        )
    parts = parts_of(url if "://" in url else f"http://{url}")
    if parts is None:
        raise EngineError(tr("{url!r} is no URL of a server. For example: http://127.0.0.1:8000", url=url))
    return base_of(f"{parts.scheme}://{parts.netloc}{parts.path}")
