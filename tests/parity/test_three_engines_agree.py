"""vLLM, llama.cpp and transformers on one model, for real: `-e both`, the manifest, the known answer, equal tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import llmlab
from llmlab.engines.both import Both
from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import Result
from llmlab.engines.self_test import KNOWN, mean_logprob
from llmlab.errors import EngineError, RequestError
from llmlab.models import get
from llmlab.parity import PROBES, Manifest, Probe
from llmlab.parity.distances import log_softmax

pytestmark = pytest.mark.slow
NUM_TOKENS = 24
PROMPTS = [probe for probe in PROBES if probe.name in ("chat", "fact", "code", "Chinese")]


@pytest.fixture(scope="module")
def q4(both: Both) -> Iterator[EngineHandle]:
    with llmlab.load("smollm2-135m", "llamacpp", quant="Q4_1", name="q4", options={"threads": 1}) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def manifest(both: Both) -> Manifest:
    return llmlab.parity(*both)


@pytest.fixture(scope="module")
def transformers_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(get("smollm2-135m").hf_dir, dtype=torch.float32)


@pytest.fixture(scope="module")
def answers(both: Both) -> dict[str, list[Result]]:
    """To each prompt, those of vLLM and of llama.cpp."""
    asked = [probe.prompt for probe in PROMPTS]
    results = [handle.batch(asked, max_tokens=NUM_TOKENS).wait() for handle in both]
    return {probe.name: list(pair) for probe, pair in zip(PROMPTS, zip(*results, strict=True), strict=True)}


def logits_by(model: Any, token_ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([token_ids])).logits[0].numpy()


def test_both_are_registered_under_names_of_their_own_in_formats_that_agree(both: Both):
    assert list(llmlab.handles())[:2] == ["smollm2-135m-vllm", "smollm2-135m-llamacpp"]
    assert both.vllm.header.dtype == "float32"
    assert (both.llamacpp.quant, both.llamacpp.header.dtype) == ("F32", "f32")
    assert both.vllm.header.max_model_len == both.llamacpp.header.max_model_len == 1024


@pytest.mark.parametrize("probe", PROMPTS, ids=lambda probe: probe.name)
def test_three_engines_give_the_same_24_greedy_tokens_and_logits(
    both: Both, answers: dict[str, list[Result]], transformers_model: Any, probe: Probe
):
    by_vllm, by_llamacpp = answers[probe.name]
    prompt, expected = list(by_vllm.prompt_token_ids), list(by_vllm.token_ids)
    assert len(expected) == NUM_TOKENS
    assert list(by_llamacpp.prompt_token_ids) == prompt
    assert list(by_llamacpp.token_ids) == expected
    token_ids = [*prompt, *expected]
    rows = [logits_by(transformers_model, token_ids), *(handle.logits(token_ids) for handle in both)]
    assert rows[0][len(prompt) - 1 : -1].argmax(axis=1).tolist() == expected
    reference, *ours = (log_softmax(each) for each in rows)
    apart = [float(np.abs(each - reference).max()) for each in ours]
    raw = float(np.abs(rows[2] - rows[0]).max())
    print(f"{probe.name}: log probabilities off by {apart[0]:.1e} (vLLM), {apart[1]:.1e} (llama.cpp); logits {raw:.1e}")
    assert max(*apart, raw) < 1e-2


def test_the_known_answer_is_that_of_transformers(transformers_model: Any):
    (known,) = KNOWN
    token_ids = [*known.prompt_token_ids, *known.answer_token_ids]
    rows = logits_by(transformers_model, token_ids)[len(known.prompt_token_ids) - 1 : -1]
    mean = mean_logprob(rows, known.answer_token_ids)
    print(f"known answer of {known.model}: mean logprob {mean:.5f}")
    assert tuple(rows.argmax(axis=1)) == known.answer_token_ids
    assert mean == pytest.approx(known.mean_logprob, abs=1e-4)
    assert known.fingerprint == get(known.model).fingerprint


def test_the_manifest_of_both_has_no_failure(manifest: Manifest):
    assert manifest.ok, manifest.failures
    assert manifest.bound.precision == "float32"
    assert manifest.distance is not None
    print(manifest.distance)
    assert manifest.distance.max_diff < 1e-2
    assert manifest["prompt token ids"].verdict == manifest["greedy answers"].verdict == "equal"
    assert manifest.divergence is None
    table = manifest.table()
    assert list(table.columns) == [
        "section", "name", "smollm2-135m-vllm", "smollm2-135m-llamacpp", "verdict", "note",
    ]  # fmt: skip
    assert set(table["section"]) == {"text in", "numbers", "room", "text out"}


def test_a_quant_parts_from_float32_for_a_reason_that_was_tested(both: Both, q4: EngineHandle):
    manifest = llmlab.parity(both.vllm, q4, PROMPTS)
    assert manifest.ok, manifest.failures
    assert manifest.bound.precision == "quantized"
    assert manifest["weights stored in"].verdict == "differs"
    assert manifest["KL divergence"].verdict == "within bound"
    found = manifest.divergence
    assert found is not None
    assert found.cause is not None and found.cause.name == "quantization"
    assert [len(side.top) for side in (found.a, found.b)] == [5, 5]
    assert found.a.gap is not None and found.a.gap > 0
    verdicts = {cause.name: cause.verdict for cause in found.causes}
    assert {verdicts[n] for n in ("template", "BOS", "tokenization", "weights", "rounding", "sampler")} == {"excluded"}
    page = manifest._repr_html_()
    assert found.cause.finding.split(":")[0] in page
    assert "<script" not in page
    assert repr(found).splitlines()[0] in repr(manifest)


def test_a_coarser_quant_is_beyond_its_bound(both: Both):
    with llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_0", name="q4_0") as coarse:
        manifest = llmlab.parity(both.llamacpp, coarse, ["Why is the sky blue?"], max_tokens=4)
    assert not manifest.ok
    assert [row.name for row in manifest.failures] == ["KL divergence"]
    assert manifest.verdict == "Not proven to be the same: KL divergence."


def test_an_engine_that_is_paused_or_has_no_logits_is_refused(both: Both, q4: EngineHandle, tmp_path: Any):
    q4.pause()
    with pytest.raises(RequestError, match=r"q4 is paused\. Let it run first: `%llm resume`"):
        llmlab.parity(both.vllm, q4)
    q4.resume()
    q4.generate("Hi", max_tokens=2)
    path = q4.trace.save(tmp_path / "q4.jsonl")
    played = llmlab.load(str(path), engine="replay", name="played")
    with pytest.raises(EngineError, match="played: the replay engine has no logits to compare"):
        llmlab.parity(both.vllm, played)
    played.unload()
