"""PagedAttention in plain torch: a step as flat rows, the KV cache in blocks, and attention that gathers by block.

Read this fourth. Sequences with equally many new tokens are one group and one call of scaled_dot_product_attention:
decodes are the group of one new token. This file must not know weights or requests.

Source: Kwon et al., PagedAttention, SOSP 2023, section 4.1 (there a kernel reads the blocks where they lie).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.scheduling.contracts import BlockCopy


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


@dataclass(slots=True)
class Batch:
    """The rows of one forward pass: the new tokens of all sequences, one after the other. Tensors: [num_rows]."""

    spans: list[Span]
    token_ids: Tensor
    positions: Tensor
    slots: Tensor  # where the KV of each row goes: block_id * block_size + offset
    groups: list[Group]
    first_rows: list[int] = field(default_factory=list)  # of each span


def make_batch(spans: Sequence[Span], block_size: int, device: torch.device) -> Batch:
    """The rows of these spans, in their order."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    first_rows: list[int] = []
    num_blocks: list[int] = []  # of each span
    grouped: dict[tuple[int, int], list[int]] = {}
    for i, (new, first, table) in enumerate(spans):
        num_new, end = len(new), first + len(new)
        first_rows.append(len(token_ids))
        token_ids += new
        positions += range(first, end)
        slots += [table[p // block_size] * block_size + p % block_size for p in range(first, end)]
        num_blocks.append(-(-end // block_size))
        # Tables of one group are padded to the longest: lengths within a factor of two waste less than they save.
        grouped.setdefault((num_new, (num_blocks[i] - 1).bit_length()), []).append(i)
    on_device = torch.tensor([token_ids, positions, slots], device=device)
    groups = []
    for (num_new, _), members in grouped.items():
        longest = max(num_blocks[i] for i in members)
        tables = [_padded(spans[i].block_table[: num_blocks[i]], longest) for i in members]
        rows = torch.tensor([[*range(first_rows[i], first_rows[i] + num_new)] for i in members], device=device)
        groups.append(Group(rows, on_device[1][rows], torch.tensor(tables, device=device)))
    return Batch(list(spans), on_device[0], on_device[1], on_device[2], groups, first_rows)


def _padded(table: Sequence[int], num_blocks: int) -> list[int]:
    return [*table, *[table[-1]] * (num_blocks - len(table))]


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
        return self.kv[:, :, 0].numel() * self.kv.element_size()

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

    def copy(self, copies: Iterable[BlockCopy]) -> None:
        """Copy on write, in all layers; in order, since a copied block may be copied again."""
        for pair in copies:
            self.kv[:, :, pair.dst] = self.kv[:, :, pair.src]


# Told of each layer and sequence while somebody looks: the layer, the index of the sequence in the batch, and what
# computes its attention weights, [num_heads, num_new, num_context or more].
Watch = Callable[[int, int, Callable[[], Tensor]], None]


class AttentionLayer(Protocol):
    """Attention of all rows of a step in one layer, after their keys and values were written."""

    def __call__(self, layer: int, q: Tensor, kv: PagedKv, batch: Batch, watch: Watch | None = None) -> Tensor:
        """q, out: [num_rows, num_heads, head_dim]."""


def paged_attention(layer: int, q: Tensor, kv: PagedKv, batch: Batch, watch: Watch | None = None) -> Tensor:
    """The AttentionLayer of this engine."""
    out = torch.empty_like(q) if len(batch.groups) > 1 else q
    for group in batch.groups:
        k, v = kv.gather(layer, group.block_tables)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        num_seqs, num_new = group.rows.shape
        num_kv_heads, head_dim = k.shape[1], k.shape[3]
        # Query heads that share a KV head become more rows of it: no key is copied for grouped-query attention.
        asked = q[group.rows].view(num_seqs, num_new, num_kv_heads, -1, head_dim)
        asked = asked.permute(0, 2, 3, 1, 4).reshape(num_seqs, num_kv_heads, -1, head_dim)
        mask = group.mask(k.shape[2], asked.shape[2] // num_new)
        if watch is not None:
            for n, row in enumerate(group.rows[:, 0].tolist()):
                weights = partial(attention_weights, asked[n], k[n], mask[n], num_new)
                watch(layer, batch.first_rows.index(row), weights)
        answer = F.scaled_dot_product_attention(asked, k, v, attn_mask=mask)
        answer = answer.view(num_seqs, num_kv_heads, -1, num_new, head_dim).permute(0, 3, 1, 2, 4)
        answer = answer.reshape(num_seqs * num_new, -1, head_dim)
        if len(batch.groups) == 1 and num_seqs * num_new == len(q):
            return answer  # one group has all rows, in their order
        out[group.rows.reshape(-1)] = answer
    return out


def attention_weights(q: Tensor, k: Tensor, mask: Tensor, num_new: int) -> Tensor:
    """What scaled_dot_product_attention does not hand out, of one sequence, computed once more.

    q: [num_kv_heads, heads a KV head * num_new, head_dim], k: [num_kv_heads, num_keys, head_dim]. Gives
    [num_heads, num_new, num_keys], float32.
    """
    scores = (q.float() @ k.float().transpose(-1, -2)) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return weights.reshape(-1, num_new, weights.shape[-1])
