"""A LoRA adapter as PEFT saves it, turned into the GGUF adapter that llama.cpp loads on top of a model.

This file must not know how an engine applies it.

Source: convert_lora_to_gguf.py of llama.cpp (libllama 0.5.0); peft/tuners/lora/config.py for the fields.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.errors import ModelError
from llmlab.models import store
from llmlab.models.config import ModelConfig, family_of, read_json
from llmlab.models.gguf_file import GgufHeader, check_gguf
from llmlab.models.model import Model
from llmlab.models.tensors import expected_tensors, gguf_name, interleave_halves, rope_heads

if TYPE_CHECKING:
    from llmlab.models.safetensors_file import Floats, StoredTensor

_WEIGHTS = "adapter_model.safetensors"
# Settings of PEFT that two low-rank matrices and one scale do not express.
BEYOND_LORA = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices")


def adapter_gguf(path: str | os.PathLike[str], model: Model) -> Path:
    """The GGUF adapter of a PEFT folder, of its adapter_model.safetensors, or of a .gguf adapter (checked, as it is).

    Converted once and cached. Raises ModelError when files are missing, when the adapter was trained for another model,
    or when it uses what llama.cpp's LoRA cannot do (DoRA, whole extra modules, trained embeddings).
    """
    source = Path(path).expanduser()
    if source.suffix == ".gguf":
        _check_adapter(check_gguf(source))
        return source
    if not source.exists():
        raise ModelError(f"There is no LoRA adapter {source}. Give the folder that PEFT saved, or a .gguf adapter.")
    folder = source if source.is_dir() else source.parent
    weights = folder / _WEIGHTS if source.is_dir() else source
    for file in (folder / "adapter_config.json", weights):
        if not file.is_file():
            raise ModelError(
                f"There is no {file}. Give the folder that PEFT's save_pretrained() wrote, or a .gguf adapter."
            )
    settings = read_json(folder / "adapter_config.json")
    state = [part for file in (folder / "adapter_config.json", weights) for part in _state(file)]
    key = hashlib.sha256("\n".join([model.key, *state]).encode()).hexdigest()[:12]
    target = store.root() / "adapters" / f"{folder.name}-{key}.gguf"
    return store.made(target, lambda part: _convert(weights, settings, model, part))


def peft_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an adapter that PEFT saved, given as such or by its adapter_model.safetensors: what vLLM takes.

    Raises ModelError when its files are not there.
    """
    source = Path(path).expanduser().resolve()
    if source.suffix == ".gguf":
        raise ModelError(f"{source} is an adapter for llama.cpp. Give the folder that PEFT's save_pretrained() wrote.")
    folder = source.parent if source.name == _WEIGHTS else source
    for file in (folder / "adapter_config.json", folder / _WEIGHTS):
        if not file.is_file():
            raise ModelError(f"There is no {file}. Give the folder that PEFT's save_pretrained() wrote.")
    return folder


def _convert(weights: Path, settings: Mapping[str, Any], model: Model, part: Path) -> None:
    from llmlab.models.gguf_writer import write_gguf
    from llmlab.models.safetensors_file import read_tensor

    architecture = family_of(model.config, weights).name
    pairs = adapter_pairs(weights, model.config, model.name)
    stored = {f"{gguf_name(name)}.lora_{side}": (name, side) for name in pairs for side in "ab"}

    def read(tensor: str) -> Any:
        name, side = stored[tensor]
        matrix = read_tensor(pairs[name][side])
        num_heads = rope_heads(name, model.config) if side == "b" else 0
        return interleave_halves(matrix, num_heads) if num_heads else matrix

    rank = next(iter(pairs.values()))["a"].shape[0]
    metadata = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": adapter_alpha(settings, weights, rank, "llama.cpp's LoRA"),
    }
    shapes = {tensor: pairs[name][side].shape for tensor, (name, side) in stored.items()}
    write_gguf(part, architecture, metadata=metadata, shapes=shapes, quant="F32", read=read)


def adapter_pairs(weights: Path, config: ModelConfig, model: str) -> dict[str, dict[str, StoredTensor]]:
    """Name of the base tensor -> its two low-rank matrices, "a" [rank, in] and "b" [out, rank].

    Raises: ModelError when the file is damaged, or holds anything but such matrices of this model.
    """
    from llmlab.models.safetensors_file import read_table

    base = expected_tensors(config)
    pairs: dict[str, dict[str, StoredTensor]] = {}
    strangers = []
    for name, tensor in read_table(weights).items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight", name)
        target = f"{match[1]}.weight" if match else ""
        if match is None or target not in base or len(base[target]) != 2:
            strangers.append(name)
        else:
            pairs.setdefault(target, {})[match[2].lower()] = tensor
    for target, pair in pairs.items():
        shapes = {side: tensor.shape for side, tensor in pair.items()}
        rank = shapes.get("a", (0,))[0]
        if shapes != {"a": (rank, base[target][1]), "b": (base[target][0], rank)}:
            raise ModelError(
                f"{weights}: the matrices of {target!r} have shapes {shapes}, {model} has {base[target]} there."
                " The adapter belongs to another model."
            )
    if strangers:
        raise ModelError(
            f"{weights}: tensor {strangers[0]!r} is no LoRA matrix of {model}. Train the adapter on linear layers of"
            " this very model (no DoRA, no embeddings, no modules_to_save)."
        )
    if not pairs:
        raise ModelError(f"{weights} holds no LoRA matrices. Give the folder that PEFT's save_pretrained() wrote.")
    return pairs


def adapter_alpha(
    settings: Mapping[str, Any], weights: Path, rank: int, engine: str, beyond: Iterable[str] = BEYOND_LORA
) -> float:
    """What is divided by a matrix's rank to get its scale: PEFT's lora_alpha, unless it was rank-stabilized.

    Raises: ModelError for a setting of `beyond`, which `engine` cannot do, or without a number lora_alpha.
    """
    for field in beyond:
        if settings.get(field):
            raise ModelError(
                f"{weights.parent / 'adapter_config.json'} sets {field}={settings[field]!r}, which {engine}"
                " cannot do. Train it with plain LoRA, or merge it into the model and load that."
            )
    try:
        alpha = float(settings["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            f"{weights.parent / 'adapter_config.json'} has no number lora_alpha. Save the adapter again with PEFT."
        ) from None
    # rsLoRA scales by alpha / sqrt(rank)
    return alpha * rank**0.5 if settings.get("use_rslora") else alpha


def scaled_pairs(path: str | os.PathLike[str], config: ModelConfig, engine: str) -> dict[str, tuple[Floats, Floats]]:
    """Name of the base tensor -> A [rank, in] and B [out, rank] of a PEFT folder, B scaled: what is added is B A.

    Each matrix may have a rank of its own. Raises: ModelError when files are missing, belong to another model, or hold
    what two low-rank matrices cannot express.
    """
    from llmlab.models.safetensors_file import read_tensor

    folder = peft_folder(path)
    weights, settings = folder / _WEIGHTS, read_json(folder / "adapter_config.json")
    beyond = [field for field in BEYOND_LORA if field != "rank_pattern"]
    scaled = {}
    for name, pair in adapter_pairs(weights, config, "the loaded model").items():
        a, b = (read_tensor(pair[side]) for side in "ab")
        scaled[name] = a, b * (adapter_alpha(settings, weights, len(a), engine, beyond) / len(a))
    return scaled


def _check_adapter(header: GgufHeader) -> None:
    if header.get("general.type") != "adapter":
        raise ModelError(f"{header.path} is a model, not an adapter. Load it with `%llm load {header.path}`.")


def _state(path: Path) -> tuple[str, ...]:
    status = path.stat()
    return str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)
