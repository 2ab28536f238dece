"""Perplexity against transformers, and its windows against the text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import llmlab
from llmlab import models
from llmlab.engines.handle import EngineHandle
from llmlab.engines.packages import missing
from llmlab.errors import RequestError
from llmlab.quality.perplexities import TEXT, negative_log_likelihood, windows
from llmlab.shipped import shipped

SHORT = shipped(TEXT).read_text()[:700]
WINDOW = 96


@pytest.mark.parametrize(
    ("num_tokens", "window"), [(2, 2), (9, 2), (10, 3), (100, 7), (100, 100), (100, 1000), (101, 10)]
)
def test_every_token_but_the_first_is_scored_exactly_once(num_tokens: int, window: int):
    scored = []
    for start, end, first in windows(num_tokens, window):
        assert 0 < first < end - start <= window
        scored += range(start + first, end)
    assert scored == list(range(1, num_tokens))


def test_the_loss_is_that_of_a_softmax_however_large_the_logits():
    rows = np.array([[1000.0, 1000.0], [0.0, math.log(3)]], np.float32)
    assert negative_log_likelihood(rows, [0, 1]) == pytest.approx([math.log(2), math.log(4 / 3)])


@pytest.fixture(scope="module")
def reference() -> float:
    """The same windows through transformers in float32: written here, from its documentation."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    folder = models.get("smollm2-135m").hf_dir
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(SHORT, return_tensors="pt").input_ids[0]
    losses, scored = [], 1
    for start in range(0, len(ids), WINDOW // 2):
        piece = ids[start : start + WINDOW]
        with torch.no_grad():
            log_probs = model(piece[None]).logits[0].log_softmax(-1)
        first = scored - start
        losses += [-log_probs[i - 1, piece[i]].item() for i in range(first, len(piece))]
        scored = start + len(piece)
        if scored == len(ids):
            break
    assert len(losses) == len(ids) - 1
    return math.exp(sum(losses) / len(losses))


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def handle(request: pytest.FixtureRequest) -> Iterator[EngineHandle]:
    if request.param == "vllm":
        yield request.getfixturevalue("both").vllm
        return
    if lack := missing("llamacpp"):
        pytest.skip(lack)
    with llmlab.load("smollm2-135m", "llamacpp", quant="F32", ctx=256, kv_tokens=256, seqs=2) as loaded:
        yield loaded


@pytest.mark.slow
def test_perplexity_in_float32_equals_that_of_transformers_within_half_a_percent(
    handle: EngineHandle, reference: float
):
    found = llmlab.perplexity(handle, SHORT, window=WINDOW)
    assert float(found) == pytest.approx(reference, rel=0.005)
    assert found.num_scored == found.num_tokens - 1


@pytest.mark.slow
def test_a_text_that_cannot_be_scored_is_refused_in_a_sentence(handle: EngineHandle):
    for text, window, message in [
        ("a", 96, "The text has 1 tokens"),
        (SHORT, 1, "window is 1"),
        (SHORT * 8, 4096, r"logits\(\) takes 1 to"),
    ]:
        with pytest.raises(RequestError, match=message):
            llmlab.perplexity(handle, text, window=window)
