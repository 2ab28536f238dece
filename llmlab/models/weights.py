"""The weights of a model under their transformers names and in transformers order, whatever file they lie in.

Both conversions and the fingerprint read through these two classes, one tensor at a time. This file must not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmlab.errors import ModelError
from llmlab.models.config import FAMILIES, ModelConfig, read_json
from llmlab.models.gguf_file import GgufHeader, TensorInfo
from llmlab.models.safetensors_file import StoredTensor, read_table, read_tensor
from llmlab.models.tensors import OUTPUT, expected_tensors, gguf_name, rope_heads, separate_halves

Floats = NDArray[np.float32]


class Weights(Protocol):
    """Tensors by transformers name; `shapes` is in file order."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Floats: ...


class HfWeights:
    """The *.safetensors of a model folder, one file or sharded.

    Raises ModelError when a shard or a tensor is missing, has another shape than the config says, or is none of the
    family's tensors. A family that llmlab does not convert is taken as it is.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self._stored = stored_tensors(folder)
        found = {name: tensor.shape for name, tensor in self._stored.items()}
        self.shapes: Mapping[str, tuple[int, ...]] = expected_tensors(config) if config.family in FAMILIES else found
        # computed by the engines, or a copy of the tied embedding
        extra = {name for name in found.keys() - self.shapes.keys() if not name.endswith("rotary_emb.inv_freq")}
        if config.tie_embeddings:
            extra.discard(OUTPUT)
        _compare(folder, self.shapes, found, extra)

    def read(self, name: str) -> Floats:
        return read_tensor(self._stored[name])


class GgufWeights:
    """The tensors of a GGUF file, dequantized, with q and k rows back in transformers order.

    Raises ModelError as HfWeights does. A family that llmlab does not convert keeps its GGUF names.
    """

    def __init__(self, header: GgufHeader, config: ModelConfig) -> None:
        self._header, self._config = header, config
        found = {name: tensor.shape for name, tensor in header.tensors.items()}
        self.shapes: Mapping[str, tuple[int, ...]] = expected_tensors(config) if config.family in FAMILIES else found
        self._gguf_names = {name: gguf_name(name) if config.family in FAMILIES else name for name in self.shapes}
        wanted = {self._gguf_names[name]: shape for name, shape in self.shapes.items()}
        # rope_freqs is computed from the config, see hf_to_gguf
        _compare(header.path, wanted, found, found.keys() - wanted.keys() - {"rope_freqs.weight"})

    def read(self, name: str) -> Floats:
        rows = read_gguf_tensor(self._header, self._gguf_names[name])
        num_heads = rope_heads(name, self._config)
        return separate_halves(rows, num_heads) if num_heads else rows


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor in the folder's safetensors files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted({folder / str(name) for name in read_json(index).get("weight_map", {}).values()})
    else:
        shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ModelError(
            f"{folder} has no *.safetensors. Weights in other formats (pytorch_model.bin) can run code when they are"
            " loaded: save the model again with save_pretrained(), or load a .gguf of it."
        )
    return {name: tensor for shard in shards for name, tensor in read_table(shard).items()}


def read_gguf_tensor(header: GgufHeader, name: str) -> Floats:
    """One tensor of a GGUF file as float32 in the file's own row order, [*shape]."""
    from llmlab.models.gguf_package import GGMLQuantizationType, quants

    tensor = header.tensors[name]
    stored = np.fromfile(header.path, np.uint8, count=tensor.num_bytes, offset=tensor.offset)
    if tensor.type.name == "F32":
        return stored.view("<f4").reshape(tensor.shape)
    if tensor.type.name == "F16":
        return stored.view("<f2").astype(np.float32).reshape(tensor.shape)
    try:
        weights = quants.dequantize(_rows(stored, tensor), GGMLQuantizationType(tensor.type_id))
    except (NotImplementedError, ValueError) as error:
        raise ModelError(
            f"{header.path}: tensor {name!r} has type {tensor.type.name}, which the gguf package cannot dequantize."
            " Load the file as it is, or another quant of the model."
        ) from error
    return np.asarray(weights, np.float32).reshape(tensor.shape)


def _rows(stored: NDArray[np.uint8], tensor: TensorInfo) -> NDArray[np.uint8]:
    return stored.reshape(-1, tensor.shape[-1] // tensor.type.block_size * tensor.type.block_bytes)


def _compare(
    where: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], extra: set[str]
) -> None:
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ModelError(
            f"{where} lacks {len(missing)} of {len(wanted)} tensors, first {missing[0]!r}. The download is incomplete:"
            " fetch it again."
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ModelError(
                f"{where}: tensor {name!r} has shape {found[name]}, the config says {shape}. Config and weights belong"
                " to different models."
            )
    if extra:
        raise ModelError(
            f"{where} holds tensors that llmlab does not know, first {sorted(extra)[0]!r}: an adapter, a mixture of"
            " experts or quantized weights. Load the plain model, or a .gguf of it."
        )
