"""The solution of lab 1: the definitions of lab.py with their solutions. Made from lab.py."""

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
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece: bytes) -> str:
        """The characters that are whole now."""
        return self.decoder.decode(piece)

    def flush(self) -> str:
        """The end: one � if bytes are left."""
        return self.decoder.decode(b"", final=True)


def logprob(logits: np.ndarray, token_id: int) -> float:
    """Natural log of the probability of a token, of logits as large as you like. logits: [vocab_size]."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(shifted[token_id] - np.log(np.exp(shifted).sum()))


class Sampler:
    """Logits to a token. An engine calls draw(probs(logits, params), u) with a random u of the request's own."""

    def probs(self, logits: np.ndarray, params: SamplingParams) -> np.ndarray:
        """Q4: [vocab_size] -> [vocab_size]; sums to 1, exactly 0 where cut. Does not change the logits."""
        if params.temperature == 0:
            probs = np.zeros_like(logits)
            probs[logits.argmax()] = 1
            return probs
        probs = np.exp((logits - logits.max()) / params.temperature)
        probs /= probs.sum()
        probs[probs < params.min_p * probs.max()] = 0
        left = np.flatnonzero(probs)
        order = left[np.argsort(-probs[left], kind="stable")]  # the most likely first, of equal ones the lower id
        ranked = probs[order]
        if params.top_k:
            ranked[params.top_k :] = 0
        ranked /= ranked.sum()
        if params.top_p < 1:
            ranked[ranked.cumsum() - ranked >= params.top_p] = 0
        probs[order] = ranked / ranked.sum()
        return probs

    def draw(self, probs: np.ndarray, u: float) -> int:
        """Q5: the first id whose cumulative sum exceeds u, 0 <= u < 1; never an id of probability 0."""
        sums = probs.cumsum(dtype=np.float64)
        return int(np.searchsorted(sums, u * sums[-1], side="right"))


def usual_order(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The same filters in llama.cpp's usual order: what is left at temperature 1, then the temperature."""
    filters = SamplingParams(min_p=params.min_p, top_k=params.top_k, top_p=params.top_p)
    left = Sampler().probs(logits, filters)
    return Sampler().probs(np.log(left + 1e-30), SamplingParams(temperature=params.temperature))


reflection = [
    "The seed starts another random generator in each engine, and logits differ in the last bits: both draw among the "
    "same 5 tokens that survived in Q4, but with other random numbers.",
    "It keeps 90 % of the probability, which was 5 of 49,152 tokens here; and cutting before the temperature kept more "
    "tokens than cutting after it.",
]
