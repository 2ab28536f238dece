"""What a student of lab 1 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

import codecs

import numpy as np

import llmlab
from llmlab.engines.base import SamplingParams
from llmlab.parity.draws import chi_square
from llmlab.quality.loops import find_loop


class StreamDecoder:
    """Bytes of tokens in, whole characters out. One object for each answer."""

    def __init__(self) -> None:
        self.held = b""  # bytes that are no whole character yet

    def push(self, piece: bytes) -> str:
        """The characters that are whole now."""
        raise NotImplementedError("Q2")  # 1 to 12 lines

    def flush(self) -> str:
        """The end: one � if bytes are left."""
        raise NotImplementedError("Q2")  # 1 or 2 lines


def logprob(logits: np.ndarray, token_id: int) -> float:
    """Natural log of the probability of a token, of logits as large as you like. logits: [vocab_size]."""
    raise NotImplementedError("Q3")  # about 3 lines


class Sampler:
    """Logits to a token. An engine calls draw(probs(logits, params), u) with a random u of the request's own."""

    def probs(self, logits: np.ndarray, params: SamplingParams) -> np.ndarray:
        """Q4: [vocab_size] -> [vocab_size]; sums to 1, exactly 0 where cut. Does not change the logits."""
        raise NotImplementedError("Q4")  # about 18 lines

    def draw(self, probs: np.ndarray, u: float) -> int:
        """Q5: the first id whose cumulative sum exceeds u, 0 <= u < 1; never an id of probability 0."""
        raise NotImplementedError("Q5")  # about 2 lines


def usual_order(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The same filters in llama.cpp's usual order: what is left at temperature 1, then the temperature."""
    filters = SamplingParams(min_p=params.min_p, top_k=params.top_k, top_p=params.top_p)
    left = Sampler().probs(logits, filters)
    return Sampler().probs(np.log(left + 1e-30), SamplingParams(temperature=params.temperature))


reflection = ["", ""]
