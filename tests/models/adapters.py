"""A random LoRA adapter of any model, as PEFT saves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from llmlab.models.config import from_hf
from llmlab.models.tensors import expected_tensors


def save_adapter(
    folder: Path,
    model: Path,
    *,
    seed: int = 0,
    names: Sequence[str] = ("q_proj",),
    rank: int = 4,
    scale: float = 0.1,
    alpha: float = 8,
) -> str:
    """Two matrices, their entries around 0 with deviation `scale`, for each of these of every layer; the path."""
    random, tensors = np.random.default_rng(seed), {}
    for name, shape in expected_tensors(from_hf(model)).items():
        if not name.endswith(tuple(f".{wanted}.weight" for wanted in names)):
            continue
        num_out, num_in = shape
        place = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{place}.lora_A.weight"] = random.normal(0, scale, (rank, num_in)).astype(np.float32)
        tensors[f"{place}.lora_B.weight"] = random.normal(0, scale, (num_out, rank)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(names), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)
