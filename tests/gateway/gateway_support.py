"""Backends that do what a test wants, a gateway over them, and a client."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from llmlab.gateway import Gateway, gateway
from llmlab.gateway.log import Entry, Log

TOKENS = {"ANN_TOKEN": "token-of-ann", "BEN_TOKEN": "token-of-ben"}
KEYS = {"MAIN_KEY": "sk-secret-of-main", "SPARE_KEY": "sk-secret-of-spare"}
CONFIG = """
backends:
{backends}
models:
  chat:
    backends: {{{names}}}
    {model}
keys:
  ann: {{token_env: ANN_TOKEN{ann}}}
  ben: {{token_env: BEN_TOKEN}}
poll_s: 0.1
"""


class Backend:
    """One server. What it does may be changed while it runs; `asked` is what came to it: (path, headers, body)."""

    def __init__(self, name: str) -> None:
        self.name, self.key = name, KEYS.get(f"{name.upper()}_KEY", "")
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        # of an answer: how many pieces, how far apart, and what happens after so many of them
        self.num_pieces, self.gap_s = 3, 0.0
        self.dies_after: int | None = None
        self.hangs = False
        self.status, self.headers, self.error = 200, {}, "told to fail"
        self.metrics = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
        self.num_open = 0
        self.port = 0
        # path -> handler, of what else it has
        self.more_routes: dict[str, Any] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            app.router.add_post(path, self._answer)
        app.router.add_get("/{path:.*}", self._more)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """As if it was killed: its connections are reset."""
        if self._runner is not None:
            assert self._runner.server is not None
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        while self.hangs:
            await asyncio.sleep(0.02)
        return web.Response(body=self.metrics, status=200 if self.metrics else 404)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": f"{self.name}-model"}]})

    async def _more(self, request: web.Request) -> web.StreamResponse:
        if request.path not in self.more_routes:
            raise web.HTTPNotFound
        return await self.more_routes[request.path](request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.path, headers, body))
        while self.hangs:
            await asyncio.sleep(0.02)
        if self.status != 200:
            error = {
                "message": f"{self.error} ({headers.get('authorization')})",
                "type": "x",
                "param": None,
                "code": None,
            }
            return web.json_response({"error": error}, status=self.status, headers=self.headers)
        self.num_open += 1
        try:
            return await (self._stream(request) if body.get("stream") else self._whole(request))
        finally:
            self.num_open -= 1

    async def _whole(self, request: web.Request) -> web.Response:
        for number in range(self.num_pieces):
            if number == self.dies_after:
                await self._die(request)
            await asyncio.sleep(self.gap_s)
        message = {"role": "assistant", "content": f"{self.name} " * self.num_pieces}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "1", "choices": [choice], "usage": self._usage})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_event({"role": "assistant", "content": ""}))
        for number in range(self.num_pieces):
            if number == self.dies_after:
                await self._die(request)
            await asyncio.sleep(self.gap_s)
            await response.write(_event({"content": f"{self.name} "}))
        await response.write(_event({}, end="stop"))
        last = {"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": self._usage}
        await response.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        return response

    async def _die(self, request: web.Request) -> None:
        await asyncio.sleep(0.01)  # what was written is on its way
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(5)

    @property
    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": self.num_pieces, "total_tokens": 7 + self.num_pieces}


def _event(delta: dict[str, str], end: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    return f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


class Backends:
    """Some of them, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._by_name: dict[str, Backend] = {}

    def __enter__(self) -> Backends:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._by_name:
            self.stop(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getitem__(self, name: str) -> Backend:
        return self._by_name[name]

    def start(self, name: str, **behaviour: Any) -> Backend:
        """A new one; or the same one again, at the same port."""
        backend = self._by_name.setdefault(name, Backend(name))
        for what, value in behaviour.items():
            setattr(backend, what, value)
        asyncio.run_coroutine_threadsafe(backend.start(), self._loop).result(10)
        return backend

    def stop(self, name: str) -> None:
        asyncio.run_coroutine_threadsafe(self[name].stop(), self._loop).result(10)

    def config(self, *, of: dict[str, str] | None = None, model: str = "", ann: str = "") -> str:
        """`of`: more fields of a backend; `model`, `ann`: of the model, and of this client."""
        lines = "\n".join(
            f"  {name}: {{url: '{backend.url}', api_key_env: {name.upper()}_KEY{(of or {}).get(name, '')}}}"
            if backend.key
            else f"  {name}: {{url: '{backend.url}'{(of or {}).get(name, '')}}}"
            for name, backend in self._by_name.items()
        )
        names = ", ".join(f"{name}: {name}-model" for name in self._by_name)
        return CONFIG.format(backends=lines, names=names, model=model, ann=ann)

    @contextmanager
    def door(self, folder: Path, text: str | None = None, **options: Any) -> Iterator[Door]:
        file = folder / "config.yaml"
        file.write_text(self.config() if text is None else text)
        server = gateway(file, environment={**TOKENS, **KEYS}, **options)
        one = Door(server)
        try:
            yield one
        finally:
            failures = server.failures
            one.close()
        assert failures == []


class Door:
    """A gateway, and a client with the token of ann."""

    def __init__(self, server: Gateway) -> None:
        self.server, self.url = server, server.url
        self.http = httpx.Client(base_url=self.url, headers=bearer("ANN_TOKEN"), timeout=20, verify=False)

    def chat(self, text: str = "hi", **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", {})
        body = {"model": "chat", "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    @property
    def entries(self) -> list[Entry]:
        """The log."""
        return list(Log(self.server.log_path).entries())

    @property
    def last(self) -> Entry:
        assert wait_until(lambda: bool(self.entries))
        return self.entries[-1]

    def close(self) -> None:
        self.http.close()
        self.server.stop()


def bearer(variable: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[variable]}"}


def text_of(events: list[Any]) -> str:
    return "".join(c["delta"].get("content") or "" for e in events if "choices" in e for c in e["choices"])


def events_of(response: httpx.Response) -> list[Any]:
    """The JSON of each event of a stream, and its [DONE] as text."""
    assert response.headers["content-type"].startswith("text/event-stream")
    contents = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [content if content == "[DONE]" else json.loads(content) for content in contents]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's form, which is all that the body holds."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()
