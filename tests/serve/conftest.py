"""A served engine without a model, and each real one with the embedded model; torch and vLLM in a soak alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))  # engine hosts get this path too

from serve_support import MakeServed, Served, served, serving

import llmlab
from llmlab import models
from llmlab.engines import registry
from llmlab.engines.packages import missing

if TYPE_CHECKING:
    import openai

# In types that round little, and llama.cpp without kept prefixes: the same request is computed in the same way again.
REAL: dict[str, dict[str, Any]] = {
    "llamacpp": {"options": {"prefix_caching": False}},
    "torch": {"dtype": "float32", "kv_tokens": 8192},
    "vllm": {"dtype": "float32", "kv_tokens": 8192},
}


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


@pytest.fixture(
    scope="session",
    params=[name if name == "llamacpp" else pytest.param(name, marks=pytest.mark.soak) for name in REAL],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Each real engine, served."""
    if (lack := missing(request.param)) is not None:
        pytest.skip(lack)
    model = models.get("smollm2-135m")
    path = model.gguf("F16") if request.param == "llamacpp" else model.hf_dir
    handle = llmlab.load(
        str(path), engine=f"looked_into:{request.param}", name="smol", ctx=1024, seqs=16, **REAL[request.param]
    )
    with serving(handle) as one:
        yield one


@pytest.fixture(scope="session")
def client(engine: Served) -> Iterator[openai.OpenAI]:
    """The official client of that server."""
    import openai

    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=engine.token, max_retries=0) as client:
        yield client
