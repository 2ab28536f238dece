"""Decode steps as CUDA graphs: hundreds of small kernels are launched once, recorded, and replayed by one call.

A graph has fixed shapes, so there is one for each size of batch, rounded up to the next in a list; where attention is
plain torch, one for each number of blocks too. Rows that only fill up write into a block that nobody reads. All graphs
read the same tensors, which are filled before a replay: of the block tables only the rows that changed. Prefill runs
without graphs. This file must not know requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmlab.engines.torch_attention import Batch, Group, PagedKv, padded, paged_attention
from llmlab.engines.torch_model import Decoder

NUM_WARM_UPS = 2  # cuBLAS and the allocator settle before a graph is recorded


class _Graph(NamedTuple):
    """A recorded forward pass, and the tensor that it writes."""

    graph: Any
    hidden: Tensor


class DecodeGraphs:
    """The graphs of one model on a CUDA device."""

    def __init__(self, model: Decoder, kv: PagedKv, max_num_seqs: int, max_model_len: int) -> None:
        self._model, self._kv, device = model, kv, model.device
        self._batch_sizes = [*(n for n in (1, 2, 4) if n < max_num_seqs), *range(8, max_num_seqs, 8), max_num_seqs]
        self._width = min(-(-max_model_len // kv.block_size), kv.num_blocks)
        # Token ids, positions and slots of rows that only fill up.
        self._idle = torch.tensor([[0], [0], [kv.num_blocks * kv.block_size]], device=device)
        self._rows = self._idle.repeat(1, max_num_seqs)
        self._tables = torch.full((max_num_seqs, self._width), kv.num_blocks, dtype=torch.long, device=device)
        self._filled: list[Sequence[int]] = [()] * max_num_seqs  # block tables, as they stand in that tensor
        self._index = torch.arange(max_num_seqs, device=device)[:, None]
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool: Any = None  # graphs are replayed one at a time and may share memory

    def fits(self, batch: Batch) -> bool:
        """Every sequence of the batch decodes one token, without an adapter."""
        return len(batch.token_ids) == len(batch.spans) <= self._batch_sizes[-1] and not batch.adapters

    def forward(self, batch: Batch) -> Tensor:
        """What Decoder.forward() gives for this batch. The next call overwrites it."""
        key = self._fill(batch)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._record(*key)
        graph.graph.replay()
        return graph.hidden[: len(batch.spans)]

    def _fill(self, batch: Batch) -> tuple[int, int]:
        """The batch, into the tensors that graphs read: which graph is to read them (its rows, and blocks of each)."""
        num_seqs, filled = len(batch.spans), self._filled
        num_rows = next(size for size in self._batch_sizes if size >= num_seqs)
        self._rows[:, :num_seqs] = batch.rows
        self._rows[:, num_seqs:num_rows] = self._idle
        changed = [i for i, span in enumerate(batch.spans) if filled[i] != span.block_table]
        changed += [i for i in range(num_seqs, num_rows) if filled[i]]
        for i in changed:
            filled[i] = batch.spans[i].block_table if i < num_seqs else ()
        if changed:
            tables = [padded(filled[i], self._width, self._kv.num_blocks) for i in changed]
            on = self._tables.device
            self._tables[torch.tensor(changed, device=on)] = torch.tensor(tables, device=on)
        if self._model.attention is not paged_attention:
            return num_rows, self._width
        num_blocks = max(map(len, filled[:num_seqs]))
        rounded = 1 << (num_blocks - 1).bit_length() if num_blocks < 8 else -(-num_blocks // 8) * 8
        return num_rows, min(rounded, self._width)

    def _record(self, num_rows: int, num_blocks: int) -> _Graph:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                self._forward(num_rows, num_blocks)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            hidden = self._forward(num_rows, num_blocks)
        self._pool = self._pool or graph.pool()
        return _Graph(graph, hidden)

    def _forward(self, num_rows: int, num_blocks: int) -> Tensor:
        batch = Batch(self._rows[:, :num_rows])
        batch.groups = [Group(self._index[:num_rows], batch.positions[:, None], self._tables[:num_rows, :num_blocks])]
        return self._model.forward(batch, self._kv)
