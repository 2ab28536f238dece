"""vLLM engines on the embedded model, small enough to load in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from safetensors.numpy import save_file

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.vllm import VllmEngine
from llmlab.trace import BlockDelta, Header, Request, Step, Trace
from llmlab.trace.block_state import BlockState

SMALL = {"kv_tokens": 640, "max_model_len": 384, "token_budget": 128, "max_num_seqs": 8}
# Twelve prompts over 20 blocks of 32: every third begins with the same three blocks.
PREFIX = list(range(1000, 1096))
CROWD = [
    PREFIX + [2000 + i] * (5 + i) if i % 3 == 0 else [3000 + 7 * i + j for j in range(10 + 12 * i)] for i in range(12)
]


class FollowedEngine(VllmEngine):
    """Knows the KV cache at every moment of its session, so that a trace may begin at any."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._blocks = BlockState()

    def step(self) -> Step:
        step = super().step()
        if isinstance(step, DecodeStep):
            step = step.record()
        if isinstance(step.kv, BlockDelta):
            assert (told := self._blocks.apply(step.kv)) == [], (told, step)
        return step

    @property
    def header_now(self) -> Header:
        """Of a trace that begins here."""
        return replace(self.header, kv_at_start=self._blocks.snapshot(self.core.num_blocks))


def engine(*, options: Mapping[str, Any] | None = None, **config: Any) -> FollowedEngine:
    model = models.get("smollm2-135m")
    settings = {"threads": 1, **(options or {})}
    config = {**SMALL, "fingerprint": model.fingerprint, **config}
    return FollowedEngine(EngineConfig("vllm", model.name, str(model.hf_dir), **config, options=settings))


def serve(on: FollowedEngine, requests: Sequence[Request]) -> Trace:
    """Run these requests to their end; the trace of it."""
    header = on.header_now
    for each in requests:
        on.add_request(each)
    steps: list[Step] = []
    while on.has_unfinished_requests():
        steps.append(on.step())
    return Trace(header, tuple(requests), tuple(steps))


def no_block_is_held(on: VllmEngine) -> bool:
    return on.core.num_free_blocks == on.core.num_blocks


def save_adapter(folder: Path, seed: int, *, rank: int = 4) -> str:
    """A random LoRA adapter of the embedded model, strong enough to change its answers; the path."""
    random, tensors = np.random.default_rng(seed), {}
    for layer in range(30):
        place = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{place}.lora_A.weight"] = random.normal(0, 0.1, (rank, 576)).astype(np.float32)
        tensors[f"{place}.lora_B.weight"] = random.normal(0, 0.1, (576, rank)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)
