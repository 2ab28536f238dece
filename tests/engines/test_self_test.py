"""The self-test at load: it passes what computes rightly, and names what does not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from llmlab.engines.base import Floats
from llmlab.engines.self_test import EASY, KNOWN, self_test
from llmlab.trace import Header

KNOWN_MODEL = KNOWN[0]
PROMPT, ANSWER = list(KNOWN_MODEL.prompt_token_ids), list(KNOWN_MODEL.answer_token_ids)
NUM_VOCAB = 10_000


class Subject:
    """An engine whose logits prefer the next token of the text by so much that its mean logprob is `mean`."""

    def __init__(self, *, mean: float, fingerprint: str | None = KNOWN_MODEL.fingerprint, **header: str) -> None:
        self.header = Header(engine="x", fingerprint=fingerprint, device="CPU", **header)
        self.mean = mean
        self.first_token_ids = PROMPT

    def tokenize(self, text: str) -> list[int]:
        return list(range(16)) if text == EASY else [*self.first_token_ids, *ANSWER]

    def logits(self, token_ids: list[int]) -> Floats:
        # p(next) = e^m, the rest is shared: a logit of ln(p (V - 1) / (1 - p)) above the others
        rows = np.zeros((len(token_ids), NUM_VOCAB), np.float32)
        above = np.log(np.expm1(np.log(NUM_VOCAB)) / np.expm1(-self.mean))
        rows[np.arange(len(token_ids) - 1), token_ids[1:]] = above
        return rows


def test_the_known_answer_passes():
    assert self_test(Subject(mean=-0.149, dtype="float32")) is None


@pytest.mark.parametrize(
    ("header", "mean", "passes"),
    [
        ({"dtype": "float32"}, -0.155, True),
        ({"dtype": "float32"}, -0.165, False),
        ({"dtype": "bfloat16"}, -0.165, True),
        ({"dtype": "bfloat16"}, -0.30, False),
        ({"quant": "F16", "dtype": "f16"}, -0.165, True),
        ({"quant": "F32", "dtype": "f16"}, -0.165, True),
        ({"quant": "Q4_0", "dtype": "f16"}, -0.51, True),
        ({"quant": "Q4_0", "dtype": "f16"}, -0.90, False),
    ],
)
def test_the_bound_is_that_of_the_coarsest_format(header: dict[str, str], mean: float, passes: bool):
    assert (self_test(Subject(mean=mean, **header)) is None) == passes


def test_a_broken_path_is_named_with_its_figure_and_the_right_one():
    said = self_test(Subject(mean=-5.1, dtype="bfloat16"))
    assert said is not None
    assert re.match(r"bfloat16 on this CPU: the known answer .* mean logprob of -5\.10; float32 gives -0\.15", said)


def test_another_greedy_token_is_found_though_the_mean_is_right():
    class Flipped(Subject):
        def logits(self, token_ids: list[int]) -> Floats:
            rows = super().logits(token_ids)
            rows[-2, 77] = rows[-2].max() + 0.01
            rows[:-2] *= 1.2  # makes up for it in the mean
            return rows

    said = self_test(Flipped(mean=-0.149, dtype="float16"))
    assert said is not None and "77" in said


def test_nan_is_named():
    class Nan(Subject):
        def logits(self, token_ids: list[int]) -> Floats:
            return super().logits(token_ids) * np.float32("nan")

    for fingerprint in (KNOWN_MODEL.fingerprint, None):
        said = self_test(Nan(mean=-0.1, fingerprint=fingerprint, dtype="float16"))
        assert said == "float16 on this CPU: the first forward pass gave NaN or infinite logits"


def test_a_wrong_tokenizer_is_named_with_both_lists():
    subject = Subject(mean=-0.149, dtype="float32")
    subject.first_token_ids = [0, *PROMPT]
    said = self_test(subject)
    assert said is not None and str([0, *PROMPT, *ANSWER][:24]) in said and str([*PROMPT, *ANSWER]) in said


def test_an_unknown_or_altered_model_must_only_be_better_than_dice():
    assert self_test(Subject(mean=-3.0, fingerprint="sha256:0", dtype="float32")) is None
    assert self_test(Subject(mean=-3.0, dtype="float32"), is_altered=True) is None
    said = self_test(Subject(mean=-9.0, fingerprint=None, quant="Q4_1", dtype="f16"))
    assert said == (
        "Q4_1 weights, float16 KV cache on this CPU: an easy sentence has a mean logprob of -9.0; "
        "tokens thrown by dice have -9.2"
    )
