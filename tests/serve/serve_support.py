"""A server and an HTTP client that knows its token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fake_loading
import httpx
from looked_into import LEFT

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.serve import Server

OF_SERVE = {"token", "max_open", "max_body_bytes", "tls_cert", "tls_key", "host", "port"}
MakeServed = Callable[..., "Served"]
NOTHING = dict.fromkeys(LEFT, 0)


class Served:
    """A server, its engine, and a client."""

    def __init__(self, server: Server) -> None:
        self.server, self.handle = server, server.handle
        self.url, self.token = server.url, server.token
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=180, verify=False
        )

    def chat(self, text: str, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}], **fields})

    def complete(self, prompt: Any, **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", {})
        return self.http.post("/v1/completions", json={"prompt": prompt, **fields}, headers=headers)

    def metric(self, name: str) -> float:
        """The sum of the samples of that name."""
        lines = [line for line in self.http.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line[len(name)] in " {")

    def is_idle(self) -> bool:
        """Nothing runs on the engine, and nothing of it is counted as open."""
        return self.handle.num_open_requests == 0 and self.server.num_open == 0

    def left(self) -> dict[str, int]:
        """What is left in a real engine, as it says itself: LEFT of looked_into.py."""
        memory = self.handle.memory()
        return {name: memory[name] for name in LEFT}

    def close(self) -> None:
        self.http.close()
        self.server.stop()


@contextmanager
def serving(handle: EngineHandle) -> Iterator[Served]:
    """A loaded engine behind a server, until the end: then it is unloaded, and the server has failed on nothing."""
    one = Served(llmlab.serve(handle))
    yield one
    failures = one.server.failures
    one.close()
    handle.unload()
    assert failures == []


def served(**options: Any) -> Served:
    """The fake engine behind a server."""
    of_serve = {name: options.pop(name) for name in list(options) if name in OF_SERVE}
    handle: EngineHandle = fake_loading.load_fake(name="echo", **options)
    return Served(llmlab.serve(handle, **of_serve))


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event of a stream, and its [DONE] as text."""
    assert response.headers["content-type"].startswith("text/event-stream")
    contents = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [content if content == "[DONE]" else json.loads(content) for content in contents]


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's form, which is all that the body holds."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]
