"""A student's attention in the torch engine: tensors are handed over as CPU arrays, since students write numpy.

The other parts need no torch: student_parts.py. This file must not know requests or weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from llmlab.engines.base import Attention, Floats
from llmlab.engines.student_parts import CheckedAttention
from llmlab.engines.torch_attention import Batch, PagedKv, Watch


class StudentAttention:
    """A student's attention as an AttentionLayer: called once for each layer and sequence."""

    def __init__(self, attention: Attention, names: Callable[[], list[str]]) -> None:
        """`names`: the requests of the spans of the batch that runs."""
        self._attention, self._names = CheckedAttention(attention), names
        self._told = False

    def __call__(self, layer: int, q: Tensor, kv: PagedKv, batch: Batch, watch: Watch | None = None) -> Tensor:
        if q.device.type != "cpu" and not self._told:
            print("llmlab: your attention runs on the CPU: good for correctness, not for speed.", file=sys.stderr)
            self._told = True
        out = torch.empty_like(q)
        for i, (span, first_row) in enumerate(zip(batch.spans, batch.first_rows, strict=True)):
            num_blocks = -(-span.num_context // kv.block_size)
            table = torch.tensor([list(span.block_table[:num_blocks])], device=q.device)
            k, v = (x[0, : span.num_context].float().cpu().numpy() for x in kv.gather(layer, table))
            rows = slice(first_row, first_row + len(span.token_ids))
            asked = q[rows].float().cpu().numpy()
            who = self._names()[i] if i < len(self._names()) else "the prompt"
            call = f"attention() in layer {layer} for {who}"
            out[rows] = torch.from_numpy(self._attention.answer(call, asked, k, v)).to(q)
            if watch is not None:
                watch(layer, i, partial(self._weights, call, asked, k))
        return out

    def _weights(self, call: str, q: Floats, k: Floats) -> Tensor:
        return torch.from_numpy(self._attention.weights(call, q, k))
