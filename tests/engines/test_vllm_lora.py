"""LoRA adapters on vLLM, of a tiny model: one for all requests, another for some, several in one batch."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from llmlab.errors import ModelError
from tests.engines.serving import request, token_ids
from tests.engines.vllm_support import serve, tiny_engine
from tests.models.adapters import save_adapter

pytestmark = pytest.mark.slow
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("adapters")
    return [save_adapter(folder / f"a{seed}", tiny, seed=seed, scale=0.5) for seed in range(3)]


@pytest.fixture(scope="module")
def on(adapters, tiny):
    loaded = tiny_engine(tiny, lora=adapters[0])
    yield loaded
    loaded.close()


def answer(on, **sampling):
    return token_ids(serve(on, [request(on, "r", PROMPT, max_tokens=8, ignore_eos=True, **sampling)]), "r")


def test_requests_with_different_adapters_share_a_batch_and_answer_as_each_alone(on, adapters):
    asked = dict(max_tokens=8, ignore_eos=True)
    requests = [request(on, f"r{i}", PROMPT, lora=path, **asked) for i, path in enumerate(adapters)]
    trace = serve(on, requests)
    assert max(len(step.scheduled) for step in trace.step_records) == 3
    together = [token_ids(trace, f"r{i}") for i in range(3)]
    assert len({tuple(ids) for ids in together}) == 3
    assert [answer(on, lora=path) for path in adapters] == together


def test_a_request_that_names_none_gets_the_adapter_of_the_engine(on, adapters):
    assert answer(on) == answer(on, lora=adapters[0]) == answer(on, lora=adapters[0] + "/adapter_model.safetensors")
    assert on.capabilities.lora == "request"


def test_an_adapter_that_was_written_anew_is_read_anew(on, adapters, tiny, tmp_path):
    path = str(tmp_path / "mine")
    shutil.copytree(adapters[1], path)
    before = answer(on, lora=path)
    assert before == answer(on, lora=adapters[1])
    save_adapter(tmp_path / "mine", tiny, seed=2, scale=0.5)
    assert answer(on, lora=path) == answer(on, lora=adapters[2]) != before


def test_the_logits_are_those_of_the_adapter_of_the_engine(on):
    ids = on.tokenize(PROMPT)
    assert int(np.argmax(on.logits(ids)[-1])) == answer(on)[0]


def test_an_adapter_that_cannot_be_used_is_refused_in_words(on, tiny, tmp_path):
    with pytest.raises(ModelError, match=r"There is no /nowhere/adapter_config\.json"):
        answer(on, lora="/nowhere")
    big = save_adapter(tmp_path / "big", tiny, seed=3, rank=64)
    with pytest.raises(ModelError, match=r"has rank 64, this engine has room for 16.*--opt max_lora_rank=64"):
        answer(on, lora=big)
    broken = save_adapter(tmp_path / "broken", tiny, seed=4)
    (tmp_path / "broken" / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="vLLM cannot use the LoRA adapter"):
        answer(on, lora=broken)
    assert answer(on)
