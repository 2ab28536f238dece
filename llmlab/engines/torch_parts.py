"""A student's attention in the torch engine: tensors are handed over as CPU arrays, since students write numpy.

The other parts need no torch: student_parts.py. This file must not know requests or weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from llmlab.engines.base import Attention
from llmlab.engines.student_parts import CheckedAttention
from llmlab.engines.torch_attention import Batch, PagedKv, Span


class StudentAttention:
    """A student's attention as an AttentionLayer: called once for each layer and sequence."""

    def __init__(self, attention: Attention, names: Callable[[], list[str]]) -> None:
        """`names`: the requests of the spans of the batch that runs."""
        self._attention, self._names = CheckedAttention(attention), names
        self._told = False

    def __call__(self, layer: int, q: Tensor, kv: PagedKv, batch: Batch) -> Tensor:
        if q.device.type != "cpu" and not self._told:
            print("llmlab: your attention runs on the CPU: good for correctness, not for speed.", file=sys.stderr)
            self._told = True
        out = torch.empty_like(q)
        for i, span in enumerate(batch.spans):
            who = self._names()[i] if i < len(self._names()) else "the prompt"
            asked, k, v = (x.float().cpu().numpy() for x in (q[batch.rows_of(i)], *kv.of(layer, span)))
            answer = self._attention.answer(f"attention() in layer {layer} for {who}", asked, k, v)
            out[batch.rows_of(i)] = torch.from_numpy(answer).to(q)
        return out

    def weights(self, layer: int, q: Tensor, kv: PagedKv, span: Span) -> Tensor:
        """Its attention weights, as torch_hooks.attention_weights() has them of ours."""
        asked, k = q.float().cpu().numpy(), kv.of(layer, span)[0].cpu().numpy()
        return torch.from_numpy(self._attention.weights(f"attention() in layer {layer}", asked, k))
