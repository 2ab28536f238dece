"""What a model is, in one record, read from config.json or from GGUF metadata, and written back to either.

This file must not read weights or tokenizers. Names are those of vLLM and of the house style; rope parameters keep the
form of config.json, since three engines read them there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab.errors import ModelError
from llmlab.models.gguf_file import GgufHeader


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture that llmlab converts in both directions."""

    name: str
    hf_class: str
    # config.json "architectures" that compute the same thing
    hf_aliases: tuple[str, ...] = ()
    # llama.cpp rotates neighbouring pairs of q and k (rope type NORM) where transformers rotates halves (NEOX)
    permutes_rope: bool = False
    has_qk_norm: bool = False


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "LlamaForCausalLM", hf_aliases=("MistralForCausalLM",), permutes_rope=True),
        Family("qwen2", "Qwen2ForCausalLM"),
        Family("qwen3", "Qwen3ForCausalLM", has_qk_norm=True),
    )
}


_SIZES = ("num_layers", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size")
_MAX_SIZE, _MAX_LAYERS = 10_000_000, 1000


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The facts of one model.

    `family` is a key of FAMILIES, or the architecture's own name for a model that llmlab can load but not convert.
    """

    family: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    # tokens of one sequence; no more than the sliding window, since llama.cpp computes full attention
    max_model_len: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    # config.json's rope_scaling, {} for none
    rope_scaling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tie_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a size that no model has, so that a broken file cannot ask for endless memory."""
        for name in _SIZES:
            if not 0 < getattr(self, name) < _MAX_SIZE:
                raise ValueError(f"{name} is {getattr(self, name)}")
        if self.num_layers > _MAX_LAYERS:
            raise ValueError(f"num_layers is {self.num_layers}")


def family_of(config: ModelConfig, where: Path) -> Family:
    """The family that converts this model. Raises ModelError that says where to get the other format."""
    if config.family not in FAMILIES:
        raise ModelError(
            f"{where}: llmlab converts {', '.join(FAMILIES)}; this is {config.family!r}. Get the other format"
            f" ready-made: search the Hub for '{where.stem} GGUF' (for llama.cpp) or for the folder that the file was"
            " made from (for vLLM), and load that path."
        )
    return FAMILIES[config.family]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ModelError when it is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}. A model folder needs it: fetch it again.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no valid JSON ({error}). Fetch the file again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected a JSON object. Fetch the file again.")
    return value


def from_hf(folder: Path) -> ModelConfig:
    """The facts in `folder`/config.json. Raises ModelError for a missing file or field."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json. Give a model folder as transformers saves it, or a .gguf file.")
    raw = read_json(path)
    raw = raw.get("text_config") or raw
    try:
        return _from_hf(raw)
    except KeyError as error:
        raise ModelError(f"{path} lacks the field {error}. Fetch the file again.") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"{path} cannot be used: {error}. Fetch the file again.") from error


def _from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    num_heads = int(raw["num_attention_heads"])
    # transformers 5 writes rope_parameters, before that rope_theta and rope_scaling
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = float(rope.pop("rope_theta", None) or raw.get("rope_theta") or 10000.0)
    if rope.get("rope_type", rope.get("type", "default")) == "default":
        rope = {}
    return ModelConfig(
        family=_family_name(raw),
        num_layers=int(raw["num_hidden_layers"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_heads=num_heads,
        num_kv_heads=int(raw.get("num_key_value_heads") or num_heads),
        head_dim=int(raw.get("head_dim") or raw["hidden_size"] // num_heads),
        vocab_size=int(raw["vocab_size"]),
        max_model_len=min(int(raw["max_position_embeddings"]), _sliding_window(raw)),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_scaling=rope,
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=_family_name(raw) == "qwen2" or bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
    )


def _family_name(raw: Mapping[str, Any]) -> str:
    architectures = raw.get("architectures") or [""]
    for family in FAMILIES.values():
        if architectures[0] in (family.hf_class, *family.hf_aliases):
            return family.name
    return str(architectures[0] or raw.get("model_type") or "unknown")


def _sliding_window(raw: Mapping[str, Any]) -> int:
    """Tokens that attention looks back, a huge number when it looks back to the start."""
    window = raw.get("sliding_window")
    if window is None or raw.get("use_sliding_window") is False:
        return 2**62
    return int(window)


def from_gguf(header: GgufHeader) -> ModelConfig:
    """The facts in GGUF metadata. Raises ModelError for a missing or broken value."""
    arch = header.architecture

    def value(key: str, default: Any = None) -> Any:
        return header[f"{arch}.{key}"] if default is None else header.get(f"{arch}.{key}", default)

    try:
        num_heads, hidden_size = int(value("attention.head_count")), int(value("embedding_length"))
        return ModelConfig(
            family=arch,
            num_layers=int(value("block_count")),
            hidden_size=hidden_size,
            intermediate_size=int(value("feed_forward_length")),
            num_heads=num_heads,
            num_kv_heads=int(value("attention.head_count_kv", num_heads)),
            head_dim=int(value("attention.key_length", hidden_size // num_heads)),
            vocab_size=int(value("vocab_size", header.count("tokenizer.ggml.tokens"))),
            max_model_len=int(value("context_length")),
            rms_norm_eps=_shortest_float(value("attention.layer_norm_rms_epsilon", 1e-5)),
            rope_theta=_shortest_float(value("rope.freq_base", 10000.0)),
            rope_scaling=_gguf_rope_scaling(header, arch),
            tie_embeddings="output.weight" not in header.tensors,
            attention_bias="blk.0.attn_q.bias" in header.tensors,
            mlp_bias="blk.0.ffn_down.bias" in header.tensors,
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        # e.g. one value per layer where the families of llmlab have one number
        raise ModelError(f"{header.path}: the metadata of architecture {arch!r} cannot be used ({error}).") from error


def _gguf_rope_scaling(header: GgufHeader, arch: str) -> dict[str, Any]:
    if header.get(f"{arch}.rope.scaling.type", "none") == "none":
        return {}
    scaling = {
        "rope_type": header[f"{arch}.rope.scaling.type"],
        "factor": _shortest_float(header[f"{arch}.rope.scaling.factor"]),
    }
    original = header.get(f"{arch}.rope.scaling.original_context_length")
    return scaling | ({"original_max_position_embeddings": original} if original else {})


def _shortest_float(value: float) -> float:
    """The shortest decimal that is the same float32: GGUF stores 1e-5 as 9.999999747378752e-06.

    >>> _shortest_float(9.999999747378752e-06)
    1e-05
    """
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def end_token_ids(folder: Path, of_tokenizer: int | None) -> frozenset[int]:
    """The tokens that end an answer: that of the tokenizer, and those of config.json and generation_config.json."""
    found = {of_tokenizer} if of_tokenizer is not None else set()
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            ids = read_json(folder / name).get("eos_token_id")
            found |= set(ids) if isinstance(ids, list) else {ids} if isinstance(ids, int) else set()
    return frozenset(found)
