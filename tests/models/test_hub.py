"""Downloads from a Hub: a small server of our own that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny_models

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves one folder as the model some/tiny; `served` lists the files sent, `requests` every path asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.served: list[str] = []
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(path)
        if path.startswith("/api/models/some/tiny/tree/"):
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in self.server.folder.iterdir()
            ]
            return self.send(json.dumps(files).encode(), with_body, {"Content-Type": "application/json"})
        if path.startswith("/api/models/some/tiny"):
            names = [{"rfilename": file.name} for file in self.server.folder.iterdir()]
            body = {"id": "some/tiny", "modelId": "some/tiny", "sha": COMMIT, "siblings": names, "tags": []}
            return self.send(json.dumps(body).encode(), with_body, {"Content-Type": "application/json"})
        file = self.server.folder / path.rpartition("/")[2]
        if path.startswith(f"/some/tiny/resolve/{COMMIT}/") and file.is_file():
            content = file.read_bytes()
            if with_body:
                self.server.served.append(file.name)
            etag = hashlib.sha256(content).hexdigest()
            return self.send(content, with_body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub"
    tiny_models.save(folder, tiny_models.byte_level_tokenizer("smollm"), tiny_models.llama_config())
    (folder / "README.md").write_text("not needed")
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(code: str, endpoint: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its settings at import: each step is a process of its own."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_HUB_DISABLE_XET": "1",
        "LLMLAB_CACHE": str(tmp_path / "cache"),
    }
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | settings
    command = [sys.executable, "-c", f"from llmlab import models\n{code}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_config_comes_first_weights_when_needed_and_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    small = run("print(models.get('some/tiny').config.num_layers)", hub.url, tmp_path)
    assert small.stdout == "3\n", small.stderr
    assert "config.json" in hub.served
    assert not [name for name in hub.served if name.endswith((".safetensors", ".md"))]

    made = run("print(models.get('some/tiny').gguf('F16'))", hub.url, tmp_path)
    path = Path(made.stdout.strip())
    assert path.name == "some--tiny-F16.gguf", made.stderr
    assert path.stat().st_size > 500_000
    assert hub.served.count("model.safetensors") == 1

    hub.requests.clear()
    again = run("m = models.get('some/tiny'); print(m.hf_dir, m.quants)", hub.url, tmp_path)
    assert again.stdout.endswith(f"{COMMIT} ('F16',)\n"), again.stderr
    assert hub.requests == []


def test_a_model_that_is_not_there_is_a_model_error(hub: Hub, tmp_path: Path) -> None:
    failed = run("models.get('some/other')", hub.url, tmp_path)
    assert "ModelError: The Hub has no model 'some/other' that you may read." in failed.stderr


def test_a_hub_out_of_reach_is_a_model_error(hub: Hub, tmp_path: Path) -> None:
    failed = run("models.get('some/tiny')", "http://127.0.0.1:9", tmp_path)
    assert "ModelError: 'some/tiny' is not on this computer and the Hub cannot be reached." in failed.stderr
    assert "Without network these work: smollm2-135m" in failed.stderr
