"""A server that speaks Ollama's API as its documentation has it (docs/api.md), and echoes prompts, or lets an engine
answer them.

It stands in for Ollama where that cannot be installed: it checks what our side sends, not how Ollama behaves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from tests.local_servers import LocalServer

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle

STAMP = "2026-01-01T00:00:00Z"
DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "135M", "quantization_level": "Q4_K_M"}


class OllamaConformance(LocalServer):
    """`models` are there, `fetchable` can be pulled. `asked` is what came: (path, headers, body).

    `engine`: what answers, with its own tokens and times.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("echo:latest",),
        fetchable: tuple[str, ...] = ("tiny:latest",),
        *,
        engine: EngineHandle | None = None,
    ) -> None:
        self.engine = engine
        self.details = DETAILS if engine is None else {**DETAILS, "quantization_level": engine.quant}
        self.models, self.fetchable = list(models), list(fetchable)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.break_after: int | None = None  # tokens of an answer
        super().__init__(_handler_of(self))


def _handler_of(state: OllamaConformance) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/tags":
                entry = {"modified_at": STAMP, "size": 100, "digest": "d", "details": state.details}
                self._send(200, {"models": [{"name": m, "model": m, **entry} for m in state.models]})
            elif self.path == "/api/version":
                self._send(200, {"version": "0.12.0"})
            else:
                self._send(404, {"error": "404 page not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            if self.path == "/api/pull":
                self._pull(body["model"])
            elif body["model"] not in state.models:
                self._send(404, {"error": f"model '{body['model']}' not found"})
            elif self.path == "/api/show":
                info = {"general.architecture": "llama", "llama.context_length": 2048}
                self._send(200, {"details": state.details, "model_info": info, "capabilities": ["completion"]})
            elif self.path == "/api/chat":
                self._answer(
                    body, body["messages"][-1]["content"], lambda t: {"message": {"role": "assistant", "content": t}}
                )
            else:
                self._answer(body, body["prompt"], lambda t: {"response": t})

        def _pull(self, model: str) -> None:
            name = model if ":" in model else f"{model}:latest"
            if name not in state.fetchable:
                self._stream([{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}])
                return
            state.models.append(name)
            layer = [{"status": "pulling d", "digest": "d", "total": 100, "completed": n} for n in (0, 40, 100)]
            self._stream([{"status": "pulling manifest"}, *layer, {"status": "success"}])

        def _answer(self, body: dict[str, Any], text: str, form: Any) -> None:
            if state.engine is not None:
                self._stream(_of_engine(state.engine, body, form))
                return
            limit = body["options"].get("num_predict", 16)
            letters = [text[i % len(text)] for i in range(limit)]
            head = {"model": body["model"], "created_at": STAMP}
            events = [{**head, **form(letter), "done": False} for letter in letters]
            if state.break_after is not None:
                self._stream(events[: state.break_after])
                return
            figures = {
                "total_duration": 9_000_000, "load_duration": 5_000_000, "prompt_eval_count": len(text),
                "prompt_eval_duration": 1_000_000, "eval_count": limit, "eval_duration": 3_000_000,
            }  # fmt: skip
            self._stream([*events, {**head, **form(""), "done": True, "done_reason": "length", **figures}])

        def _stream(self, events: Iterable[Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.end_headers()
            for event in events:
                self.wfile.write(json.dumps(event).encode() + b"\n")
                self.wfile.flush()
                time.sleep(0.001)

        def _send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _of_engine(engine: EngineHandle, body: dict[str, Any], form: Any) -> Iterator[Any]:
    """The events of an answer by a real engine; of the options, those that decide a greedy answer."""
    asked = body["options"]
    prompt, raw = (body["messages"], False) if "messages" in body else (body["prompt"], True)
    head, started = {"model": body["model"], "created_at": STAMP}, time.monotonic_ns()
    stream = engine.stream(
        prompt, raw=raw or None, max_tokens=asked.get("num_predict"), temperature=asked.get("temperature"),
        seed=asked.get("seed"), stop=asked.get("stop"),
    )  # fmt: skip
    for token in stream:
        yield {**head, **form(token.text), "done": False}
    result, took = stream.result, time.monotonic_ns() - started
    figures = {
        "total_duration": took, "load_duration": 0, "prompt_eval_count": result.num_prompt_tokens,
        "prompt_eval_duration": round(1e9 * (result.ttft_s or 0)), "eval_count": result.num_output_tokens,
        "eval_duration": took,
    }  # fmt: skip
    yield {**head, **form(""), "done": True, "done_reason": result.finish_reason, **figures}
