"""Servers that others wrote, connected: llama-server (through xllamacpp) and `vllm serve`; with the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llmlab
from llmlab import models
from llmlab.engines.packages import missing
from llmlab.errors import RequestError
from llmlab.remote import RemoteHandle
from tests.engines.llama_serving import llama_served
from tests.engines.vllm_serving import served

COUNTING = "1, 2, 3, 4, 5, 6,"


@pytest.fixture(scope="module")
def llama_server() -> Iterator[str]:
    with llama_served() as url:
        yield url


def check(handle: RemoteHandle) -> None:
    """What every server with the embedded model does, whoever wrote it."""
    counted = handle.generate(COUNTING, raw=True, max_tokens=6)
    assert counted.text == " 7, 8" if len(counted.text) < 6 else counted.text.startswith(" 7, 8,")
    assert (counted.num_prompt_tokens, len(counted.tokens)) == (counted.reported["num_prompt_tokens"], 6)
    assert max(counted.token_ids) < 49_152  # of the model's vocabulary, not numbers of ours
    answer = handle.generate("Name three colours.", max_tokens=5, logprobs=2)
    assert answer.finish_reason == "length" and len(answer.tokens) == 5
    assert all(logprob is not None and logprob <= 0 for logprob in answer.logprobs)
    assert all(len(token.top) == 2 for token in answer.tokens)
    run = handle.batch([COUNTING, "a, b, c, d,"], raw=True, max_tokens=4)
    assert [result.finish_reason for result in run.wait()] == ["length", "length"]
    assert run.trace.validate() == []
    stopped = handle.generate(COUNTING, raw=True, max_tokens=12, stop=["9"])
    assert "9" not in stopped.text and stopped.finish_reason == "stop"
    with pytest.raises(RequestError):
        handle.generate("word " * 9000)
    stream = handle.stream(COUNTING, raw=True, max_tokens=200, ignore_eos=True)
    next(stream)
    stream.close()
    assert stream.result.finish_reason == "interrupted"


@pytest.mark.slow
def test_llama_server_is_an_engine_like_any_other(llama_server: str):
    handle = llmlab.connect(llama_server, name="far")
    try:
        assert handle.header.engine == "llamacpp"
        assert handle.tokenize("1, 2") == [33, 28, 216, 34]
        check(handle)
    finally:
        handle.unload()


@pytest.mark.soak
def test_vllm_serve_is_an_engine_like_any_other_and_compares_with_llamacpp(tmp_path: Path, llama_server: str):
    if (lack := missing("vllm")) is not None:
        pytest.skip(lack)
    folder = models.get("smollm2-135m").hf_dir
    flags = ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "4", "--served-model-name", "smol"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with served(folder, tmp_path / "log", [*flags, "--enforce-eager"], environment=environment, start_s=400) as url:
        far = llmlab.connect(url, name="vllm")
        assert far.header.engine == "vllm" and far.header.engine_version
        assert far.header.max_model_len == 512
        assert far.tokenize("1, 2") == [33, 28, 216, 34]
        check(far)
        near = llmlab.load("smollm2-135m", engine="llamacpp", quant="F32", name="near")
        found = llmlab.compare(COUNTING, engines=[near, far, llmlab.connect(llama_server, name="q8")], max_tokens=4)
        texts = [result.text for result in found.results[0] if result is not None]
        assert len(texts) == 3 and texts[0] == texts[1]
        assert len(found.table()) == 3
