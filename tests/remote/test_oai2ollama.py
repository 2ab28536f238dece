"""A server with Ollama's API that is not ours: oai2ollama from PyPI (Python 3.12 and later), in front of `%llm serve`.

It is none of the packages of `make test`: it wants another FastAPI than vLLM, and does with that one. It has Ollama's
list, show and version, and no chat of Ollama's own: for that there is ollama_conformance.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from serve_support import MakeServed, Served, wait_until

import llmlab
from llmlab.errors import EngineError, RequestError
from tests.local_servers import free_port, is_there

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("oai2ollama") is None,
        reason="needs oai2ollama (pip install --no-deps oai2ollama h2 hpack hyperframe)",
    ),
]
START = "import uvicorn; from oai2ollama import app; uvicorn.run(app, host='127.0.0.1', port={port})"


@pytest.fixture
def echo(fake: MakeServed) -> Served:
    return fake()


@pytest.fixture
def server(echo: Served) -> Iterator[str]:
    port = free_port()
    environment = {**os.environ, "OPENAI_API_KEY": echo.token, "OPENAI_BASE_URL": f"{echo.url}/v1"}
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(port=port)], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_until(lambda: is_there(f"http://127.0.0.1:{port}/api/version"), 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_its_list_show_and_version_are_read_and_what_it_lacks_is_told(server: str):
    far = llmlab.connect(server, kind="ollama", name="far")
    assert (far.model, far.header.engine, far.header.max_model_len) == ("echo", "ollama", None)
    assert far.header.engine_version.startswith("0.")
    with pytest.raises(EngineError, match=r"has no model 'llama3'\. It has: echo"):
        llmlab.connect(server, kind="ollama", model="llama3")
    with pytest.raises(RequestError, match=r"refuses this: .*Not Found"):
        far.generate("abc", max_tokens=4)


def test_through_it_an_answer_is_that_of_the_server_behind(server: str, echo: Served):
    near = echo.handle.generate("abc", max_tokens=5)
    far = llmlab.connect(server, name="far")
    answer = far.generate("abc", max_tokens=5)
    assert (answer.text, answer.token_ids) == (near.text, near.token_ids)
