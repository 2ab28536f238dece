"""The self-test at every load: does this engine, on this machine, compute what the weights say?

Broken hardware paths (AMX that is only advertised, a bfloat16 kernel that rounds wrongly) answer fluently and wrongly.
Every engine with logits() runs this before it serves. This file must not know any engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llmlab.engines.base import Floats
from llmlab.engines.precision import formats, precision
from llmlab.trace import Header

EASY = "The capital of France is Paris. One, two, three, four, five."
# Tokens thrown by dice have a mean logprob of -ln(num_vocab); an easy sentence must be this much better, in nats.
MIN_BETTER_THAN_DICE = 1.0


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What a model says when nothing is broken. Measured with transformers in float32.

    >>> float(np.exp(KNOWN[0].mean_logprob)) > 0.85
    True
    """

    model: str
    fingerprint: str
    prompt: str
    prompt_token_ids: tuple[int, ...]
    # the greedy answer, its end included
    answer: str
    answer_token_ids: tuple[int, ...]
    # of the tokens of the answer, natural log
    mean_logprob: float


# Source: tests/parity/test_three_engines_agree.py computes these anew with transformers (5.19, float32). The nearest
# second choice at any place of the answer is 1.59 nats behind: no rounding turns it around.
KNOWN = (
    KnownAnswer(
        model="smollm2-135m",
        fingerprint="sha256:7a67a63212c424633a0ef8677d27a3772452d0f12ee455574465349c4a227ac8",
        prompt="<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
        prompt_token_ids=(1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198),
        answer="The capital of France is Paris.<|im_end|>",
        answer_token_ids=(504, 3575, 282, 4649, 314, 7042, 30, 2),
        mean_logprob=-0.14902,
    ),
)
# How far the mean logprob may be off, in nats. Measured: float32 0.0000, F16 and bfloat16 up to 0.015, quants from Q2_K
# to Q8_0 up to 0.363 (Q4_0, made from Q4_1).
MAX_OFF = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.1, "quantized": 0.6}


class Subject(Protocol):
    """What the self-test needs of an engine."""

    @property
    def header(self) -> Header: ...

    def tokenize(self, text: str) -> list[int]: ...

    def logits(self, token_ids: list[int]) -> Floats: ...


def self_test(engine: Subject, *, is_altered: bool = False) -> str | None:
    """A sentence that names the broken path and its figures, or None when all is well.

    A model of KNOWN must give its known answer; any other must read an easy sentence better than dice do.
    `is_altered`: an adapter or an option changes what the model says, so that its known answer says nothing.
    """
    known = next((k for k in KNOWN if k.fingerprint == engine.header.fingerprint), None)
    if known is None or is_altered:
        return _better_than_dice(engine)
    return _gives(engine, known)


def _gives(engine: Subject, known: KnownAnswer) -> str | None:
    token_ids = engine.tokenize(known.prompt + known.answer)
    expected = [*known.prompt_token_ids, *known.answer_token_ids]
    if token_ids != expected:
        return f"{known.model} tokenizes {known.prompt!r} as {token_ids[: len(expected)]}, expected {expected}"
    first = len(known.prompt_token_ids)
    rows = engine.logits(token_ids)[first - 1 : -1]
    if not np.isfinite(rows).all():
        return f"{_path(engine.header)}: the first forward pass gave NaN or infinite logits"
    mean = mean_logprob(rows, known.answer_token_ids)
    kind = precision(engine.header)
    if abs(mean - known.mean_logprob) > MAX_OFF[kind]:
        return (
            f"{_path(engine.header)}: the known answer {known.answer!r} has a mean logprob of {mean:.2f}; "
            f"float32 gives {known.mean_logprob:.2f}, and {MAX_OFF[kind]:g} off is all that {kind} explains"
        )
    greedy = [int(row.argmax()) for row in rows]
    if kind != "quantized" and greedy != list(known.answer_token_ids):
        return f"{_path(engine.header)}: the greedy answer is {greedy}, in float32 {list(known.answer_token_ids)}"
    return None


def _better_than_dice(engine: Subject) -> str | None:
    token_ids = engine.tokenize(EASY)
    logits = engine.logits(token_ids)
    if not np.isfinite(logits).all():
        return f"{_path(engine.header)}: the first forward pass gave NaN or infinite logits"
    mean, dice = mean_logprob(logits[:-1], token_ids[1:]), -float(np.log(logits.shape[1]))
    if mean < dice + MIN_BETTER_THAN_DICE:
        return (
            f"{_path(engine.header)}: an easy sentence has a mean logprob of {mean:.1f}; "
            f"tokens thrown by dice have {dice:.1f}"
        )
    return None


def mean_logprob(logits: Floats, token_ids: tuple[int, ...] | list[int]) -> float:
    """Mean natural log of the probability of token i in row i. logits: [num_tokens, num_vocab], any constant a row."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(token_ids)), list(token_ids)]
    return float(np.mean(chosen - np.log(np.exp(rows).sum(axis=1))))


def _path(header: Header) -> str:
    """What computes: "bfloat16 on this CPU", "Q4_1 weights, float16 KV cache on this CPU"."""
    weights, dtype = formats(header)
    what = weights if weights == dtype else f"{weights} weights, {dtype} KV cache"
    return f"{what} on this {header.device or 'machine'}"
