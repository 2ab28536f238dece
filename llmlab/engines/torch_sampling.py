"""From logits to tokens: temperature, min-p, top-k, top-p, in this order, for all rows of a step at once.

The order is the contract of SamplingParams (vLLM's). Each request draws with a generator of its own, so that its tokens
do not depend on who is in the batch. This file must not know the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from llmlab.engines.base import Sampler, SamplingParams
from llmlab.engines.logprobs import logprobs
from llmlab.engines.streaming import Answer
from llmlab.engines.torch_room import Text
from llmlab.engines.torch_weights import Adapter
from llmlab.scheduling.plan import Share
from llmlab.scheduling.sequence import Sequence as Seq
from llmlab.trace import FinishReason, Token


@dataclass(slots=True)
class Generation:
    """What the engine keeps of one request beside its Sequence; it survives preemption."""

    params: SamplingParams
    answer: Answer
    adapter: Adapter | None = None
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.params.seed)


def sample(
    shares: Sequence[Share],
    logits: Tensor,
    drafts: Mapping[int, Sequence[int]],
    generations: Mapping[str, Generation],
    sampler: Sampler | None,
    text: Text,
) -> tuple[list[Token], dict[str, FinishReason]]:
    """One token for each share that samples, and one more for each of its drafts that it agrees with.

    `drafts`: index of a share -> what was drafted for it. logits: [num_rows, vocab_size], the rows of the shares that
    sample in their order, each followed by those of its drafts. The tokens are appended to the sequences.
    """
    tokens: list[Token] = []
    ended: dict[str, FinishReason] = {}
    asked: list[tuple[Seq, int, list[int]]] = []  # a sequence, its row, and the drafts that it may still agree with
    row = 0
    for i, share in enumerate(shares):
        if share.samples:
            asked.append((share.seq, row, [*drafts.get(i, ())]))
            row += 1 + len(asked[-1][2])
    while asked:
        of_rows = logits if len(asked) == len(logits) else logits[[row for _, row, _ in asked]]
        kept = [generations[seq.request_id] for seq, _, _ in asked]
        agreed = []
        for n, token_id in enumerate(pick(of_rows, kept, sampler)):
            seq, row, left = asked[n]
            wants_logprobs = kept[n].params.logprobs is not None
            tokens.append(_token(seq, token_id, kept[n], text, ended, of_rows[n] if wants_logprobs else None))
            if left and left[0] == token_id and seq.request_id not in ended:
                agreed.append((seq, row + 1, left[1:]))
        asked = agreed
    return tokens, ended


def _token(
    seq: Seq, token_id: int, kept: Generation, text: Text, ended: dict[str, FinishReason], row: Tensor | None
) -> Token:
    """Append a token to its sequence: its record. `row`: its logits, when their logprobs were asked for.

    `ended` gets the sequence when this was its last token.
    """
    seq.token_ids.append(token_id)
    shown, reason = kept.answer.push(text.answer_bytes(token_id), is_end=token_id in text.end_ids)
    if reason:
        ended[seq.request_id] = reason
    if row is None or kept.params.logprobs is None:
        return Token(request_id=seq.request_id, token_id=token_id, text=shown)
    logprob, top = logprobs(row.cpu().numpy(), token_id, kept.params.logprobs)
    told = tuple((i, value, text.token_text(i)) for i, value in top)
    return Token(request_id=seq.request_id, token_id=token_id, text=shown, logprob=logprob, top=told)


def pick(logits: Tensor, generations: Sequence[Generation], sampler: Sampler | None = None) -> list[int]:
    """One token for each row. logits: [num_rows, vocab_size], float32; they do not change."""
    if sampler is not None:
        rows = logits.cpu().numpy()
        return [
            int(sampler.draw(sampler.probs(row, each.params), float(each.random.random())))
            for row, each in zip(rows, generations, strict=True)
        ]
    token_ids: list[int] = logits.argmax(dim=-1).tolist()
    drawing = [i for i, each in enumerate(generations) if each.params.temperature > 0]
    if drawing:
        asked = [generations[i] for i in drawing]
        probs = probabilities(logits[drawing] if len(drawing) < len(logits) else logits, [g.params for g in asked])
        drawn = draw(probs, [float(g.random.random()) for g in asked])
        for i, token_id in zip(drawing, drawn, strict=True):
            token_ids[i] = token_id
    return token_ids


def probabilities(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """[num_rows, vocab_size] -> the same shape: rows sum to 1, exactly 0 where cut. Every temperature is above 0."""

    def column(name: str) -> Tensor:
        return torch.tensor([[getattr(p, name)] for p in params], device=logits.device, dtype=logits.dtype)

    probs = torch.softmax(logits / column("temperature"), dim=-1)
    if any(p.min_p for p in params):
        probs = probs.where(probs >= column("min_p") * probs.amax(dim=-1, keepdim=True), 0)
    if any(p.top_k or p.top_p < 1 for p in params):
        # Ties: the lower id first, hence stable.
        best, ids = probs.sort(dim=-1, descending=True, stable=True)
        top_k = column("top_k")
        rank = torch.arange(logits.shape[-1], device=logits.device)
        best = best.where((rank < top_k) | (top_k == 0), 0)
        best = best / best.sum(dim=-1, keepdim=True)
        # A token stays while the mass strictly in front of it is below top_p; 1 skips: float sums would cut the tail.
        top_p, in_front = column("top_p"), best.cumsum(dim=-1) - best
        best = best.where((in_front < top_p) | (top_p == 1), 0)
        probs = torch.zeros_like(probs).scatter_(-1, ids, best)
    return probs / probs.sum(dim=-1, keepdim=True)


def draw(probs: Tensor, u: Sequence[float]) -> list[int]:
    """For each row the first id whose cumulative sum exceeds u, 0 <= u < 1; never an id of probability 0.

    >>> draw(torch.tensor([[0.5, 0.0, 0.5]] * 3), [0.0, 0.5, 0.999])
    [0, 2, 2]
    """
    wide = probs.float() if probs.device.type == "mps" else probs.double()  # MPS has no float64
    sums = wide.cumsum(dim=-1)
    wanted = torch.tensor(u, device=probs.device, dtype=sums.dtype)[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    last = probs.shape[-1] - 1 - (probs.flip(-1) > 0).int().argmax(dim=-1)
    return torch.minimum(found, last).tolist()
