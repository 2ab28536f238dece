"""Our block quantizers and the bytes of llama.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from llmlab.models import quantize
from llmlab.models.quantize import QUANTIZERS, ggml_bytes


@pytest.mark.parametrize("name", QUANTIZERS)
def test_our_bytes_are_those_of_llama_cpp_and_of_the_gguf_package(name: str):
    """Of this machine: where a compiler fuses multiply and add, a few differ (Q4_0 on some ARM processors)."""
    rng = np.random.default_rng(0)
    weights = (rng.normal(0, 1, (3, 500, 64)) * np.exp(rng.uniform(-9, 0, (3, 500, 1)))).astype(np.float32)
    weights[0, 0] = 0
    before = weights.copy()
    ours = QUANTIZERS[name].quantize(weights)
    assert ours.shape == (3000, QUANTIZERS[name].bytes_per_block)
    np.testing.assert_array_equal(ours, ggml_bytes(weights, name))
    np.testing.assert_array_equal(ours.ravel(), quants.quantize(weights, GGMLQuantizationType[name]).ravel())
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_any_block_is_read_back_as_the_gguf_package_reads_it(name: str):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (500, QUANTIZERS[name].bytes_per_block), dtype=np.uint8)
    blocks[:, :2] = rng.normal(0, 1, (500, 1)).astype("<f2").view(np.uint8)
    theirs = quants.dequantize(blocks, GGMLQuantizationType[name])
    np.testing.assert_array_equal(QUANTIZERS[name].dequantize(blocks), theirs.ravel())


def test_halves_go_away_from_zero_and_the_largest_weight_of_q4_0_keeps_its_sign():
    x = np.zeros(32, np.float32)
    x[:6] = 127, 0.5, 1.5, 2.5, -2.5, 0.49999997
    assert QUANTIZERS["Q8_0"].quantize(x)[0, :8].view(np.int8).tolist() == [0, 60, 127, 1, 2, 3, -3, 0]
    x[:] = 0
    x[0], x[16] = -8, 7.4
    assert QUANTIZERS["Q4_0"].quantize(x)[0, :4].tolist() == [0, 0x3C, 0xF0, 0x88]
    assert QUANTIZERS["Q4_0"].quantize(np.zeros(32, np.float32)).tobytes() == b"\x00\x80" + b"\x88" * 16


def test_without_llama_cpp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    quantize._ggml_quantize_chunk.cache_clear()
    with pytest.raises(quantize.ModelError, match=r"llama\.cpp is not installed here: `pip install"):
        ggml_bytes(np.zeros(32, np.float32), "Q8_0")
    quantize._ggml_quantize_chunk.cache_clear()
