"""Torch engines on tiny random models, ready in a moment, and on the embedded model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.torch_paged import TorchEngine
from llmlab.models.config import from_hf
from llmlab.models.tensors import expected_tensors
from llmlab.trace import Request, Step, Trace

PARTS = ("policy", "sampler", "block_pool", "attention")


def engine(folder: Path, *, options: Mapping[str, Any] | None = None, **config: Any) -> TorchEngine:
    parts = {name: config.pop(name) for name in PARTS if name in config}
    settings = {"threads": 1, **(options or {})}
    return TorchEngine(EngineConfig("torch", folder.name, str(folder), options=settings, **config), **parts)


def embedded(**config: Any) -> TorchEngine:
    model = models.get("smollm2-135m")
    return engine(model.hf_dir, fingerprint=model.fingerprint, **config)


def request(on: TorchEngine, name: str, prompt: str | Sequence[int], **sampling: Any) -> Request:
    token_ids = on.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
    extra = {key: sampling.pop(key) for key in ("priority", "user", "salt") if key in sampling}
    wanted = {"temperature": 0.0, "max_tokens": 24, **sampling}
    return Request(request_id=name, arrival_s=0.0, prompt_token_ids=tuple(token_ids), sampling=wanted, **extra)


def serve(on: TorchEngine, requests: Sequence[Request]) -> Trace:
    """Run these requests to their end; the trace of it."""
    for each in requests:
        on.add_request(each)
    steps: list[Step] = []
    while on.has_unfinished_requests():
        step = on.step()
        assert isinstance(step, Step)
        steps.append(step)
    return Trace(on.header, tuple(requests), tuple(steps))


def token_ids(trace: Trace, name: str) -> list[int]:
    return [t.token_id for step in trace.step_records for t in step.tokens if t.request_id == name]


def broken_rules(trace: Trace) -> list[str]:
    return [str(violation) for violation in trace.validate()]


def save_adapter(folder: Path, model: Path, seed: int, names: Sequence[str] = ("self_attn.q_proj",)) -> str:
    """A random LoRA adapter for these matrices of every layer; the path."""
    random, tensors, rank = np.random.default_rng(seed), {}, 4
    shapes = expected_tensors(from_hf(model))
    for name, (num_out, num_in) in (
        (n, s) for n, s in shapes.items() if n.endswith(tuple(f"{x}.weight" for x in names))
    ):
        place = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{place}.lora_A.weight"] = random.normal(0, 0.2, (rank, num_in)).astype(np.float32)
        tensors[f"{place}.lora_B.weight"] = random.normal(0, 0.2, (num_out, rank)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": list(names), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)
