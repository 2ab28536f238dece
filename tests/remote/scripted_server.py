"""A server with OpenAI's API that says what a test wants it to: chunks, errors, and the end of a connection."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.local_servers import LocalServer


class ScriptedServer(LocalServer):
    """`script` is what each request for an answer gets, in order: (status, headers, body), or the chunks of a stream.

    A chunk that is None ends the connection at once. `asked` is what came: (path, headers, body).
    """

    def __init__(self, owned_by: str = "somebody") -> None:
        self.script: list[Any] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.owned_by = owned_by
        super().__init__(_handler_of(self))


def chunk(text: str | None = None, *, end: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": end, **more}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


def _handler_of(script: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = {"id": "m", "object": "model", "created": 0, "owned_by": script.owned_by}
            self._send(200, {}, {"object": "list", "data": [model]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            answer = script.script.pop(0)
            if isinstance(answer, tuple):
                self._send(*answer)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in answer:
                if event is None:
                    self.connection.close()
                    return
                self.wfile.write(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
                self.wfile.flush()

        def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
