"""Our header scan against the gguf package, and our tables against its tables."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from llmlab import models
from llmlab.models.gguf_file import GgufHeader
from llmlab.models.quants import QUANTS, TENSOR_TYPES
from llmlab.models.safetensors_file import read_table, read_tensor, write_float32
from llmlab.models.tensors import interleave_halves, separate_halves


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    ours = {type_id: (kind.name, kind.block_size, kind.block_bytes) for type_id, kind in TENSOR_TYPES.items()}
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert ours == theirs


def test_quants_carry_llama_cpps_file_types() -> None:
    names = {kind.name.removeprefix("ALL_").removeprefix("MOSTLY_"): int(kind) for kind in gguf.LlamaFileType}
    assert {quant.name: quant.file_type for quant in QUANTS.values()} == {name: names[name] for name in QUANTS}


@pytest.mark.slow
def test_header_equals_what_the_gguf_package_reads(smollm2: models.Model) -> None:
    ours, theirs = GgufHeader(smollm2.path), gguf.GGUFReader(smollm2.path)
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert set(ours.keys) == set(fields)
    for key in ours.keys:
        assert ours[key] == fields[key].contents(), key
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.offset, info.num_bytes, info.type_id) == (tensor.data_offset, tensor.n_bytes, tensor.tensor_type)


def test_halves_interleave_within_each_head_and_back() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert interleave_halves(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleave_halves(rows, 1).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert np.array_equal(separate_halves(interleave_halves(rows, 2), 2), rows)


def test_safetensors_we_write_are_read_by_the_package_and_back(tmp_path: Path) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([1.5, float("inf"), -0.0], np.float32),
    }
    write_float32(tmp_path / "x.safetensors", {name: t.shape for name, t in tensors.items()}, tensors.__getitem__)
    loaded = load_file(tmp_path / "x.safetensors")
    table = read_table(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        assert np.array_equal(loaded[name], tensor)
        assert np.array_equal(read_tensor(table[name]), tensor)


@pytest.mark.slow
def test_half_precision_safetensors_are_read_exactly(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.tensor([[0.1, -3.75, 65504.0, 1e-7], [float("inf"), 0.0, 2.0, -1e-3]])
    save_file({"half": values.half(), "brain": values.bfloat16()}, tmp_path / "x.safetensors")
    table = read_table(tmp_path / "x.safetensors")
    assert np.array_equal(read_tensor(table["half"]), values.half().float().numpy())
    assert np.array_equal(read_tensor(table["brain"]), values.bfloat16().float().numpy())
