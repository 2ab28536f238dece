"""Wild requests: good ones, changed at random in path, headers and body. Seeded, and much faster than a generator of
valid documents; test_fuzz.py has that one too."""

from __future__ import annotations

import copy
import json
import random
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

GOOD: list[tuple[str, Any]] = [
    ("/v1/completions", {"prompt": "abc", "max_tokens": 3, "temperature": 0.5, "n": 2, "stop": ["x"], "seed": 1}),
    ("/v1/completions", {"prompt": [97, 98], "max_tokens": 2, "stream": True,
        "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "logit_bias": {}}),
    ("/v1/chat/completions", {"messages": [{"role": "system", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": "b"}], "max_completion_tokens": 2, "stream": True, "metadata": {"a": "b"}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("/tokenize", {"prompt": "abc"}), ("/detokenize", {"tokens": [97, 98]}),
    ("/v1/models", None), ("/v1/models/echo", None), ("/health", None), ("/openapi.json", None), ("/trace/clock", None),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, -(10**40), 0.1, -0.0, 1e308, 1e-320, "", "a", "\x00",
    "ÿ", "😀" * 50, "../../etc", "x" * 5000, [], [[]], [None], ["a", 1], {}, {"a": {}}, {"": None}, [[1, 2], "a"],
    {"$ref": "#"}, {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}, [1.5], [-1], ["a"] * 300,
]  # fmt: skip
PATHS = [
    "/%00",
    "/%ff",
    "/..%2f..",
    "/v1/models/%2e%2e/x",
    "//",
    "/v1//models",
    "/?a=b&c",
    "/v1/models/a/b/c?x=%zz",
    "/\xe9",
]
HEADERS = [
    "X-Request-Id: {junk}", "X-Request-Id: ok-1", "Content-Type: {junk}", "Accept: {junk}", "Content-Encoding: gzip",
    "Transfer-Encoding: chunked", "Transfer-Encoding: {junk}", "Content-Length: -1", "Content-Length: {junk}",
    "Content-Length: 99999999999999999999", "Expect: 100-continue", "Host: {junk}", "Authorization: Bearer {junk}",
    "Connection: upgrade\r\nUpgrade: websocket", "Range: bytes=0-1", "X-{junk}: a", "{junk}", "Cookie: {junk}",
    "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
]  # fmt: skip

PATIENCE_S, END_S = 0.15, 10.0


class Wild:
    """Makes and sends requests to a server; the same seed makes the same ones. `good`: (path, body) that it serves."""

    def __init__(self, port: int, token: str, seed: int, good: Sequence[tuple[str, Any]] = GOOD) -> None:
        self._port, self._token, self._random, self._good = port, token, random.Random(seed), good

    def statuses(self, count: int) -> Counter[int | None]:
        """Send so many; how often each status came. None: the connection was ended without an answer."""
        found = Counter[int | None]()
        for _ in range(count):
            request = self.request()
            status = self.send(request)
            assert status is None or status < 500, (status, request[:2000])
            found[status] += 1
        return found

    def request(self) -> bytes:
        """A request as it goes over the wire; most have one or two things wrong with them."""
        rng = self._random
        path, body = rng.choice(self._good)
        content = b"" if body is None else self._content(body)
        method = "GET" if body is None else "POST"
        if rng.random() < 0.1:
            method = rng.choice(
                ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "M-SEARCH"]
            )
        if rng.random() < 0.15:
            path = (
                rng.choice(PATHS) if rng.random() < 0.5 else path + rng.choice(["/", "?", "%", "//x", "\x7f", "%c0%af"])
            )
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(content)}"]
        if rng.random() < 0.95:
            lines.append(f"Authorization: Bearer {self._token}")
        if rng.random() < 0.25:
            lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(HEADERS).replace("{junk}", self._junk()))
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + content
        if rng.random() < 0.03:
            at = rng.randrange(len(whole))
            whole = whole[:at] + rng.randbytes(rng.randrange(1, 9)) + whole[at + rng.randrange(3) :]
        return whole

    def send(self, request: bytes) -> int | None:
        """The status of the answer; None when the server ended the connection without one."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
            answer = b""
            with suppress(OSError):  # it was ended, or what follows the request is the beginning of another one
                connection.sendall(request)
                connection.settimeout(PATIENCE_S)
                with suppress(TimeoutError):  # the server waits for the rest of a body
                    answer = connection.recv(65536)
                if not answer:
                    connection.shutdown(socket.SHUT_WR)
                connection.settimeout(END_S)
                while more := connection.recv(65536):
                    answer += more
        first = answer.partition(b"\r\n")[0].split(b" ")
        return int(first[1]) if len(first) > 1 and first[0].startswith(b"HTTP/") else None

    def _content(self, body: Any) -> bytes:
        rng = self._random
        kind = rng.random()
        if kind < 0.2:
            return json.dumps(body).encode()
        if kind < 0.75:
            changed = copy.deepcopy(body)
            for _ in range(rng.randrange(1, 3)):
                self._change(changed)
            return json.dumps(changed).encode()
        content = bytearray(json.dumps(body).encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(content))
            content[at : at + rng.randrange(3)] = rng.choice(
                [
                    b"",
                    b'"',
                    b"{",
                    b"]",
                    b"\\",
                    b"\\ud800",
                    b"\xff",
                    b"\x00",
                    b"1e999",
                    b"NaN",
                    b"[" * 3000,
                    rng.randbytes(3),
                ]
            )
        return bytes(content)

    def _change(self, node: Any) -> None:
        """Somewhere in it, put a value that does not belong there, take one away, or add a field."""
        rng = self._random
        while isinstance(node, dict | list) and node:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            place = rng.choice(places)
            if isinstance(node[place], dict | list) and node[place] and rng.random() < 0.6:
                node = node[place]
                continue
            if rng.random() < 0.15:
                del node[place]
            elif isinstance(node, dict) and rng.random() < 0.2:
                node[rng.choice(["tools", "top_k", "user", "logprobs", "echo", "x" * 200, "seed", "n"])] = (
                    copy.deepcopy(rng.choice(VALUES))
                )
            else:
                node[place] = copy.deepcopy(rng.choice(VALUES))
            return

    def _junk(self) -> str:
        return "".join(chr(self._random.randrange(1, 256)) for _ in range(self._random.randrange(0, 30)))
