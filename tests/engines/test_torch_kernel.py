"""The Triton kernel of the torch engine against plain torch: on any CPU, by Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmlab.engines.torch_attention import flash_attention, paged_attention

pytest.importorskip("triton")

# Attention as the kernel and as plain torch compute it: heads, KV heads, width of a head, size of a block.
SHAPES = [(9, 3, 64, 16), (4, 2, 32, 8), (2, 2, 80, 16), (4, 1, 16, 4)]
SCRIPT = """
import json, sys, torch
from types import SimpleNamespace
from llmlab.engines.torch_attention import PagedKv, Span, flash_attention, make_batch, paged_attention
from llmlab.engines.torch_kernel import kernel_attention
cpu, found = torch.device("cpu"), []
for num_heads, num_kv_heads, head_dim, size in json.loads(sys.argv[1]):
    torch.manual_seed(0)
    kv = PagedKv(2, 40, size, num_kv_heads, head_dim, device=cpu, dtype=torch.float32)
    kv.kv.copy_(torch.randn(kv.kv.shape))
    tables = torch.randperm(40).tolist()
    places = (30, 0, 0), (7, 50, 9), (1, 66, 20), (1, 0, 39)
    spans = [Span([0] * new, first, tables[at:]) for new, first, at in places]
    batch = make_batch(spans, size, cpu)
    q = torch.randn(len(batch.positions), num_heads + num_kv_heads, head_dim)[:, :num_heads]
    plain, ours = (attend(1, q, kv, batch) for attend in (paged_attention, kernel_attention))
    found.append(float((plain - ours).abs().max()))
config = SimpleNamespace(num_heads=9, num_kv_heads=3, head_dim=64)
is_used = flash_attention(config, torch.float32, cpu) is kernel_attention
print(json.dumps([found, is_used]))
"""


@pytest.mark.slow
def test_the_kernel_gives_what_plain_torch_gives_and_is_used_then():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SHAPES)], capture_output=True, text=True, check=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    found, is_used = json.loads(done.stdout.splitlines()[-1])
    assert max(found) < 1e-5 and is_used


def test_where_the_kernel_cannot_run_plain_torch_does_and_one_line_says_why(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "llmlab.engines.torch_kernel", None)  # as without Triton
    config: Any = SimpleNamespace(num_heads=9, num_kv_heads=3, head_dim=64)
    assert flash_attention(config, torch.float32, torch.device("cpu")) is paged_attention
    told = capsys.readouterr().err
    assert told.startswith("llmlab: attention runs in plain torch, since the Triton kernel cannot be used (")
