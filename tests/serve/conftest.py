"""A served engine without a model, and a served llama.cpp with the embedded one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))  # engine hosts get this path too

from serve_support import MakeServed, Served, served, serving

import llmlab
from llmlab.engines import registry

if TYPE_CHECKING:
    import openai


@pytest.fixture
def fake() -> Iterator[MakeServed]:
    """fake(step_s=0.01, max_open=4): a served engine that echoes its prompt; options of the engine or of serve()."""
    made: list[Served] = []

    def make(**options: object) -> Served:
        made.append(served(**options))
        return made[-1]

    yield make
    for one in made:
        failures = one.server.failures
        one.close()
        assert failures == []
    registry.unload(all=True)


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[Served]:
    # without kept prefixes, and in a type that rounds little: the same request is computed in the same way again
    handle = llmlab.load(
        "smollm2-135m", engine="llamacpp", quant="F16", name="smol", ctx=1024, options={"prefix_caching": False}
    )
    with serving(handle) as one:
        yield one


@pytest.fixture(scope="session")
def client(llamacpp: Served) -> Iterator[openai.OpenAI]:
    """The official client of the served llama.cpp."""
    import openai

    with openai.OpenAI(base_url=f"{llamacpp.url}/v1", api_key=llamacpp.token, max_retries=0) as client:
        yield client
