"""Decode steps as CUDA graphs: a thousand small kernels are launched once, recorded, and replayed by one call.

A graph has fixed shapes, so there is one for each size of batch and each number of blocks, both rounded up to the next
in a list; rows that only fill up write into a block that nobody reads. Prefill runs without graphs.
This file must not know requests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmlab.engines.torch_attention import Batch, Group, PagedKv
from llmlab.engines.torch_model import Decoder

NUM_WARM_UPS = 2  # cuBLAS and the allocator settle before a graph is recorded


class _Graph:
    """One recorded forward pass: the tensors it reads, and the one it writes."""

    def __init__(self, num_rows: int, num_blocks: int, kv: PagedKv, device: torch.device) -> None:
        scratch = kv.num_blocks
        self.token_ids = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.positions = torch.zeros(num_rows, dtype=torch.long, device=device)
        self.slots = torch.full((num_rows,), scratch * kv.block_size, dtype=torch.long, device=device)
        self.block_tables = torch.full((num_rows, num_blocks), scratch, dtype=torch.long, device=device)
        self.rows = torch.arange(num_rows, device=device)[:, None]
        self.graph: Any = None
        self.hidden: Tensor | None = None


class DecodeGraphs:
    """The graphs of one model on a CUDA device."""

    def __init__(self, model: Decoder, kv: PagedKv, max_num_seqs: int) -> None:
        self._model, self._kv = model, kv
        sizes = [1, 2, 4, *range(8, max_num_seqs, 8)]
        self._batch_sizes = [size for size in sizes if size < max_num_seqs] + [max_num_seqs]
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._pool: Any = None  # graphs are replayed one at a time and may share memory

    def fits(self, batch: Batch) -> bool:
        """Every sequence of the batch decodes one token."""
        return len(batch.token_ids) == len(batch.spans) <= self._batch_sizes[-1]

    def forward(self, batch: Batch) -> Tensor:
        """What Decoder.forward() gives for this batch."""
        num_rows = len(batch.spans)
        num_blocks = max(group.block_tables.shape[1] for group in batch.groups)
        key = (
            next(size for size in self._batch_sizes if size >= num_rows),
            1 << (num_blocks - 1).bit_length() if num_blocks < 8 else -(-num_blocks // 8) * 8,
        )
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = _Graph(*key, self._kv, self._model.device)
        self._fill(graph, batch)
        if graph.graph is None:
            self._record(graph)
        graph.graph.replay()
        assert graph.hidden is not None
        return graph.hidden[:num_rows]

    def _fill(self, graph: _Graph, batch: Batch) -> None:
        n = len(batch.spans)
        graph.token_ids[:n], graph.positions[:n], graph.slots[:n] = batch.token_ids, batch.positions, batch.slots
        graph.token_ids[n:], graph.positions[n:] = 0, 0
        graph.slots[n:] = self._kv.num_blocks * self._kv.block_size
        graph.block_tables.fill_(self._kv.num_blocks)
        for group in batch.groups:
            graph.block_tables[group.rows[:, 0], : group.block_tables.shape[1]] = group.block_tables

    def _record(self, graph: _Graph) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_WARM_UPS):
                self._forward(graph)
        torch.cuda.current_stream().wait_stream(stream)
        graph.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph.graph, pool=self._pool):
            graph.hidden = self._forward(graph)
        self._pool = self._pool or graph.graph.pool()

    def _forward(self, graph: _Graph) -> Tensor:
        group = Group(graph.rows, graph.positions[:, None], graph.block_tables)
        batch = Batch([], graph.token_ids, graph.positions, graph.slots, [group])
        return self._model.forward(batch, self._kv)
