"""PagedAttention in plain torch: a step as flat rows, the KV cache in blocks, and attention that gathers by block.

Read this fourth. Sequences with equally many new tokens are one group and one call of scaled_dot_product_attention:
decodes are the group of one new token. This file must not know weights or requests.

Source: Kwon et al., PagedAttention, SOSP 2023, section 4.1 (there a kernel reads the blocks where they lie).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.models.config import ModelConfig
from llmlab.scheduling.contracts import BlockCopy

# How far the kernel may be from plain torch where all values are about 1.
KERNEL_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}


class Span(NamedTuple):
    """What one sequence computes in a forward pass: new tokens, from a position on, with its block table."""

    token_ids: Sequence[int]
    first: int
    block_table: Sequence[int]

    @property
    def num_context(self) -> int:
        """Tokens that its last new token attends to, itself included."""
        return self.first + len(self.token_ids)


@dataclass(slots=True)
class Group:
    """Sequences with equally many new tokens. rows, positions: [num_seqs, num_new], block_tables: [num_seqs,
    num_blocks]."""

    rows: Tensor
    positions: Tensor
    block_tables: Tensor
    _mask: Tensor | None = None

    def mask(self, num_context: int, num_repeats: int) -> Tensor:
        """[num_seqs, 1, num_repeats * num_new, num_context]: True where a new token may look. The same in all layers,
        so made once.
        """
        if self._mask is None:
            self._mask = causal_mask(self.positions, num_context).repeat(1, 1, num_repeats, 1)
        return self._mask


class Batch:
    """The rows of one forward pass: the new tokens of all sequences, one after the other.

    token_ids, positions, slots: [num_rows] each. A slot is where the KV of a row goes: block_id * block_size + offset.
    """

    def __init__(self, rows: Tensor, spans: Sequence[Span] = (), block_size: int = 0) -> None:
        """rows: [3, num_rows], these three."""
        self.rows, self.spans, self._block_size = rows, spans, block_size
        self.token_ids, self.positions, self.slots = rows.unbind()
        self.first_rows = [*accumulate((len(span.token_ids) for span in spans), initial=0)][:-1]  # of each span
        self.adapters: list[tuple[Tensor, Any]] = []  # rows, and the LoRA adapter that they ask for

    def rows_of(self, i: int) -> slice:
        """Where the rows of span `i` are."""
        return slice(self.first_rows[i], self.first_rows[i] + len(self.spans[i].token_ids))

    @cached_property
    def groups(self) -> list[Group]:
        """Made when attention first asks: a CUDA graph has its own."""
        members: dict[tuple[int, int], list[tuple[int, Sequence[int]]]] = {}
        for first_row, (new, first, table) in zip(self.first_rows, self.spans, strict=True):
            num_blocks = -(-(first + len(new)) // self._block_size)
            # Tables of one group are padded to the longest: lengths within a factor of two waste less than they save.
            key = len(new), (num_blocks - 1).bit_length()
            members.setdefault(key, []).append((first_row, table[:num_blocks]))
        device, groups = self.rows.device, []
        for (num_new, _), seqs in members.items():
            longest = max(len(table) for _, table in seqs)
            tables = torch.tensor([padded(table, longest) for _, table in seqs], device=device)
            first_rows = torch.tensor([first for first, _ in seqs], device=device)
            rows = first_rows[:, None] + torch.arange(num_new, device=device)
            groups.append(Group(rows, self.positions[rows], tables))
        return groups


def make_batch(spans: Sequence[Span], block_size: int, device: torch.device) -> Batch:
    """The rows of these spans, in their order."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for new, first, table in spans:
        token_ids += new
        for p in range(first, first + len(new)) if len(new) > 1 else (first,):
            positions.append(p)
            slots.append(table[p // block_size] * block_size + p % block_size)
    return Batch(torch.tensor([token_ids, positions, slots], device=device), spans, block_size)


def padded(table: Sequence[int], num_blocks: int, block: int | None = None) -> list[int]:
    """The table, made that long with a block that nobody looks at there: its last one, unless told which."""
    return [*table, *[table[-1] if block is None else block] * (num_blocks - len(table))]


def causal_mask(positions: Tensor, num_context: int) -> Tensor:
    """[num_seqs, num_new] -> [num_seqs, 1, num_new, num_context]: a token looks at itself and what is before it.

    >>> causal_mask(torch.tensor([[1, 2]]), 4).int().tolist()
    [[[[1, 1, 0, 0], [1, 1, 1, 0]]]]
    """
    return torch.arange(num_context, device=positions.device) <= positions[:, None, :, None]


class PagedKv:
    """kv: [num_layers, 2, num_blocks + 1, block_size, num_kv_heads, head_dim], allocated once. The last block is
    nobody's: rows that only fill up a CUDA graph are written there.
    """

    def __init__(
        self, num_layers: int, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int,
        *, device: torch.device, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self.num_blocks, self.block_size = num_blocks, block_size
        shape = (num_layers, 2, num_blocks + 1, block_size, num_kv_heads, head_dim)
        self.kv = torch.zeros(shape, device=device, dtype=dtype)
        self._slots = self.kv.view(num_layers, 2, -1, num_kv_heads, head_dim)

    @property
    def bytes_per_block(self) -> int:
        return self.kv[:, :, 0].nbytes

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """k, v: [num_rows, num_kv_heads, head_dim]."""
        self._slots[layer, 0].index_copy_(0, slots, k)
        self._slots[layer, 1].index_copy_(0, slots, v)

    def gather(self, layer: int, block_tables: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in logical order, [num_seqs, num_blocks * block_size, num_kv_heads, head_dim] each."""
        num_seqs, num_blocks = block_tables.shape
        found = self.kv[layer].index_select(1, block_tables.reshape(-1))
        k, v = found.view(2, num_seqs, num_blocks * self.block_size, *found.shape[-2:])
        return k, v

    def of(self, layer: int, span: Span) -> tuple[Tensor, Tensor]:
        """Keys and values of one sequence, [num_context, num_kv_heads, head_dim] each, in float32."""
        k, v = self.gather(layer, torch.tensor([list(span.block_table)], device=self.kv.device))
        return k[0, : span.num_context].float(), v[0, : span.num_context].float()

    def copy(self, copies: Iterable[BlockCopy]) -> None:
        """Copy on write, in all layers; in order, since a copied block may be copied again."""
        for pair in copies:
            self.kv[:, :, pair.dst] = self.kv[:, :, pair.src]


class AttentionLayer(Protocol):
    """Attention of all rows of a step in one layer, after their keys and values were written."""

    def __call__(self, layer: int, q: Tensor, kv: PagedKv, batch: Batch) -> Tensor:
        """q, out: [num_rows, num_heads, head_dim]."""


def paged_attention(layer: int, q: Tensor, kv: PagedKv, batch: Batch) -> Tensor:
    """The AttentionLayer of this engine."""
    out = torch.empty_like(q)
    for group in batch.groups:
        k, v = kv.gather(layer, group.block_tables)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        num_seqs, num_new = group.rows.shape
        num_kv_heads, head_dim = k.shape[1], k.shape[3]
        # Query heads that share a KV head become more rows of it: no key is copied for grouped-query attention.
        asked = q[group.rows].view(num_seqs, num_new, num_kv_heads, -1, head_dim)
        asked = asked.permute(0, 2, 3, 1, 4).reshape(num_seqs, num_kv_heads, -1, head_dim)
        mask = group.mask(k.shape[2], asked.shape[2] // num_new)
        answer = F.scaled_dot_product_attention(asked, k, v, attn_mask=mask)
        answer = answer.view(num_seqs, num_kv_heads, -1, num_new, head_dim).permute(0, 3, 1, 2, 4)
        answer = answer.reshape(num_seqs * num_new, -1, head_dim)
        if len(batch.groups) == 1:
            return answer  # it has all rows, in their order
        out[group.rows.reshape(-1)] = answer
    return out


def flash_attention(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> AttentionLayer:
    """The kernel of torch_kernel.py once it has given on this machine what plain torch gives; else paged_attention."""
    try:
        from llmlab.engines.torch_kernel import kernel_attention, trial

        apart = trial(config, dtype, device)
        if apart <= KERNEL_TOLERANCE.get(dtype, 0.0):
            return kernel_attention
        why = f"it is {apart:.3g} off"
    except Exception as error:  # no Triton, no compiler, an old GPU: whatever this machine lacks
        why = f"{type(error).__name__}: {str(error)[:200]}"
    print(f"llmlab: attention runs in plain torch, since the Triton kernel cannot be used ({why}).", file=sys.stderr)
    return paged_attention
