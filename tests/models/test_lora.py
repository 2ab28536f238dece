"""A LoRA adapter as PEFT saves it, in llama.cpp, against transformers with the weights merged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from llmlab import models
from llmlab.errors import ModelError
from llmlab.models.lora import adapter_gguf

pytestmark = pytest.mark.slow

TOKEN_IDS = [5, 17, 301, 42, 7, 555, 123, 88] * 4
RANK, ALPHA = 4, 16.0
TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[models.Model, Any]:
    folder = tmp_path_factory.mktemp(f"{request.param}-base")
    make = {"llama": tiny_models.llama_config, "qwen3": tiny_models.qwen3_config}[request.param]
    pre = {"llama": "smollm", "qwen3": "qwen2"}[request.param]
    saved = tiny_models.save(folder, tiny_models.byte_level_tokenizer(pre), make())
    return models.get(folder), saved


def save_adapter(folder: Path, model: Any, **settings: Any) -> dict[str, Any]:
    """Writes a random adapter under PEFT's names; returns base tensor name -> its two matrices."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    tensors, pairs = {}, {}
    for name, weight in model.state_dict().items():
        if name.removesuffix(".weight").endswith(TARGETS) and ".layers." in name:
            pair = torch.randn(RANK, weight.shape[1]) * 0.1, torch.randn(weight.shape[0], RANK) * 0.1
            pairs[name] = pair
            for side, matrix in zip("AB", pair, strict=True):
                tensors[f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight"] = matrix
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return pairs


def merged_logits(model: Any, pairs: dict[str, Any], scale: float) -> np.ndarray:
    import torch

    merged = copy.deepcopy(model)
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            merged.get_parameter(name).add_(scale * (b @ a))
        return merged(torch.tensor([TOKEN_IDS])).logits[0].numpy()


@pytest.mark.parametrize(("settings", "scale"), [({}, ALPHA / RANK), ({"use_rslora": True}, ALPHA / RANK**0.5)])
def test_logits_equal_transformers_with_merged_weights(
    base: tuple[models.Model, Any], tmp_path: Path, llama: Callable[..., Any], settings: dict[str, Any], scale: float
) -> None:
    store, model = base
    expected = merged_logits(model, save_adapter(tmp_path / "adapter", model, **settings), scale)
    file = llama(store.gguf("F32"))
    plain = file.logits(TOKEN_IDS)
    assert np.abs(plain - expected).max() > 0.1  # the adapter does something
    file.apply_lora(adapter_gguf(tmp_path / "adapter", store))
    assert np.abs(file.logits(TOKEN_IDS) - expected).max() < 1e-3


def test_a_folder_its_file_and_a_gguf_name_the_same_adapter(base: tuple[models.Model, Any], tmp_path: Path) -> None:
    store, model = base
    save_adapter(tmp_path / "adapter", model)
    made = adapter_gguf(tmp_path / "adapter", store)
    assert adapter_gguf(tmp_path / "adapter" / "adapter_model.safetensors", store) == made
    assert adapter_gguf(str(made), store) == made


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"use_dora": True}, "sets use_dora=True, which llama.cpp's LoRA cannot do"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save="),
        ({"rank_pattern": {"q_proj": 8}}, "sets rank_pattern="),
        ({"lora_alpha": None}, "has no number lora_alpha"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(
    base: tuple[models.Model, Any], tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    save_adapter(tmp_path / "adapter", base[1], **settings)
    with pytest.raises(ModelError, match=complaint):
        adapter_gguf(tmp_path / "adapter", base[0])


def test_an_adapter_of_another_model_is_refused(
    base: tuple[models.Model, Any], smollm2: models.Model, tmp_path: Path
) -> None:
    save_adapter(tmp_path / "adapter", base[1])
    with pytest.raises(ModelError, match="The adapter belongs to another model"):
        adapter_gguf(tmp_path / "adapter", smollm2)


def test_missing_and_wrong_files_are_named(base: tuple[models.Model, Any], tmp_path: Path) -> None:
    store, model = base
    with pytest.raises(ModelError, match=r"There is no .*adapter_config\.json"):
        adapter_gguf(tmp_path, store)
    save_adapter(tmp_path / "adapter", model)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged"):
        adapter_gguf(tmp_path / "adapter", store)
    with pytest.raises(ModelError, match="is a model, not an adapter"):
        adapter_gguf(store.gguf("F32"), store)
