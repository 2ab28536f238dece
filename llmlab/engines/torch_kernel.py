"""PagedAttention as one kernel, in Triton, for GPUs: it reads blocks where they lie, and keeps no scores or copies.

It computes what paged_attention() says in plain torch (torch_attention.py). A program of the kernel has some queries of
one sequence that share a KV head; it walks along the block table, a tile of keys at a time, and keeps a running maximum
and a running sum, so that no score outlives its tile. This file must not know weights or requests.

Source: Dao et al., FlashAttention, NeurIPS 2022, algorithm 1; Kwon et al., PagedAttention, SOSP 2023, section 4.1.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from llmlab.engines.torch_attention import Batch, Group, PagedKv, Span, make_batch, paged_attention
from llmlab.models.config import ModelConfig

# Queries and keys of a tile; the matrix units of a GPU multiply 16 x 16 at least.
MIN_TILE, MAX_QUERIES, NUM_KEYS = 16, 64, 64


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    q_at, k_at, v_at, out_at, rows_at, positions_at, tables_at, scale, q_stride, num_new, table_width,
    BLOCK_SIZE: tl.constexpr, NUM_KV_HEADS: tl.constexpr, NUM_REPEATS: tl.constexpr, HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr, NUM_QUERIES: tl.constexpr, NUM_KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    seq, kv_head = tl.program_id(0), tl.program_id(1)
    # Query i of a KV head is head i % NUM_REPEATS of its group at new token i // NUM_REPEATS.
    i = tl.program_id(2) * NUM_QUERIES + tl.arange(0, NUM_QUERIES)
    new = i // NUM_REPEATS
    is_query = new < num_new
    row = tl.load(rows_at + seq * num_new + new, mask=is_query, other=0)
    position = tl.load(positions_at + seq * num_new + new, mask=is_query, other=0)
    head = kv_head * NUM_REPEATS + i % NUM_REPEATS
    dim = tl.arange(0, WIDTH)
    is_mine = is_query[:, None] & (dim < HEAD_DIM)[None, :]
    q = tl.load(q_at + row[:, None] * q_stride + head[:, None] * HEAD_DIM + dim[None, :], mask=is_mine, other=0.0)
    highest = tl.full([NUM_QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([NUM_QUERIES], tl.float32)
    out = tl.zeros([NUM_QUERIES, WIDTH], tl.float32)
    end = tl.max(position, 0) + 1
    for first in range(0, end, NUM_KEYS):
        key = first + tl.arange(0, NUM_KEYS)
        block = tl.load(tables_at + seq * table_width + key // BLOCK_SIZE, mask=key < end, other=0).to(tl.int64)
        slot = block * BLOCK_SIZE + key % BLOCK_SIZE
        at = (slot[:, None] * NUM_KV_HEADS + kv_head) * HEAD_DIM + dim[None, :]
        is_key = (key < end)[:, None] & (dim < HEAD_DIM)[None, :]
        k = tl.load(k_at + at, mask=is_key, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
        now_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - now_highest[:, None])
        shrink = tl.exp(highest - now_highest)
        v = tl.load(v_at + at, mask=is_key, other=0.0)
        out = out * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        total = total * shrink + tl.sum(weights, 1)
        highest = now_highest
    out_row = row[:, None] * NUM_KV_HEADS * NUM_REPEATS + head[:, None]
    tl.store(
        out_at + out_row * HEAD_DIM + dim[None, :], (out / total[:, None]).to(out_at.dtype.element_ty), mask=is_mine
    )


def kernel_attention(layer: int, q: Tensor, kv: PagedKv, batch: Batch) -> Tensor:
    """The AttentionLayer of a GPU."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for group in batch.groups:
        _launch(q, kv.kv[layer], group, out)
    return out


def _launch(q: Tensor, kv: Tensor, group: Group, out: Tensor) -> None:
    """kv: [2, num_blocks, block_size, num_kv_heads, head_dim], in one piece."""
    (num_seqs, num_new), (block_size, num_kv_heads, head_dim) = group.rows.shape, kv.shape[2:]
    num_repeats = q.shape[1] // num_kv_heads
    num_queries = min(max(MIN_TILE, triton.next_power_of_2(num_new * num_repeats)), MAX_QUERIES)
    grid = (num_seqs, num_kv_heads, triton.cdiv(num_new * num_repeats, num_queries))
    kernel: Any = _attend[grid]
    kernel(
        q, kv[0], kv[1], out, group.rows, group.positions, group.block_tables, head_dim**-0.5, q.stride(0), num_new,
        group.block_tables.stride(0), BLOCK_SIZE=block_size, NUM_KV_HEADS=num_kv_heads, NUM_REPEATS=num_repeats,
        HEAD_DIM=head_dim, WIDTH=max(MIN_TILE, triton.next_power_of_2(head_dim)), NUM_QUERIES=num_queries,
        NUM_KEYS=NUM_KEYS, PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
    )  # fmt: skip


def trial(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> float:
    """How far the kernel is from plain torch, at most: two prompts and a decode, in blocks out of order."""
    kv = PagedKv(1, 12, 16, config.num_kv_heads, config.head_dim, device=device, dtype=dtype)
    random = torch.Generator(device="cpu").manual_seed(0)
    kv.kv.copy_(torch.randn(kv.kv.shape, generator=random))
    spans = [Span([0] * 40, 0, (5, 0, 3)), Span([0] * 7, 50, (9, 2, 7, 1)), Span([0], 66, (11, 4, 10, 6, 8))]
    batch = make_batch(spans, kv.block_size, device)
    q = torch.randn(48, config.num_heads + 1, config.head_dim, generator=random).to(device, dtype)[:, :-1]
    plain, ours = (attend(0, q, kv, batch) for attend in (paged_attention, kernel_attention))
    return float((plain - ours).abs().max())
