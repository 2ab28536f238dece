"""What the torch engine is loaded with: device, type of numbers, room for KV, limits, tokenizer. Nothing is computed.

This file must not know requests or weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from llmlab.engines.base import EngineConfig
from llmlab.engines.threads import default_threads
from llmlab.engines.vllm_text import Vocabulary
from llmlab.errors import EngineError, unknown
from llmlab.models import kv_bytes_per_token
from llmlab.models.config import ModelConfig, end_token_ids
from llmlab.models.fit import DTYPES

OPTIONS = (
    "threads", "device", "prefix_caching", "policy", "draft", "num_draft_tokens", "flash_attn", "cuda_graphs", "timers",
)  # fmt: skip
# Small blocks make good pictures, and there is no kernel that wants larger ones.
BLOCK_SIZE = 16
# Seats and token budget; on a CPU the same as those of our other engines: what differs is the engine then.
CPU_LIMITS, GPU_LIMITS = (16, 256), (256, 8192)
CPU_KV_TOKENS = 4096
# Of the free memory of a GPU, once the weights are there, when nobody says how much KV room there is to be.
GPU_KV_SHARE = 0.5


class Room:
    """Raises: EngineError when the device or the dtype is not here."""

    def __init__(self, config: EngineConfig, model: ModelConfig, options: dict[str, Any]) -> None:
        self.device = _device(options.get("device"))
        self.dtype = _dtype(config.dtype, self.device)
        on_gpu = self.device.type == "cuda"
        if self.device.type == "cpu":
            torch.set_num_threads(int(options.get("threads") or default_threads()))
        self.block_size = config.block_size or BLOCK_SIZE
        num_seqs, budget = GPU_LIMITS if on_gpu else CPU_LIMITS
        self.max_num_seqs = config.max_num_seqs or num_seqs
        self.token_budget = max(config.token_budget or budget, self.max_num_seqs)
        kv_tokens = config.kv_tokens or max(CPU_KV_TOKENS, config.max_model_len or 0)
        if on_gpu and not config.kv_tokens:
            kv_tokens = self._gpu_kv_tokens(model, config.max_model_len)
        self.num_blocks = -(-kv_tokens // self.block_size)
        longest = min(model.max_model_len, self.num_blocks * self.block_size)  # one sequence may fill the whole cache
        self.max_model_len = min(config.max_model_len or longest, longest)

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()

    def _gpu_kv_tokens(self, model: ModelConfig, max_model_len: int | None) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        per_token = kv_bytes_per_token(model, self.dtype.itemsize)
        most = self.max_num_seqs * (max_model_len or model.max_model_len)
        return min(int(free * GPU_KV_SHARE) // per_token, most)


def _device(wanted: str | None) -> torch.device:
    here = ["cpu"]
    here += ["cuda"] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    if wanted is not None and wanted.split(":")[0] not in here:
        raise EngineError(unknown("device", wanted, here))
    return torch.device(wanted or here[-1])


def _dtype(wanted: str | None, device: torch.device) -> torch.dtype:
    """float32 on a CPU and on Apple GPUs, bfloat16 on CUDA, unless somebody chose."""
    name = wanted or ("bfloat16" if device.type == "cuda" else "float32")
    name = DTYPES.get(name.upper(), name.lower())
    if name not in DTYPES.values():
        raise EngineError(unknown("dtype", name, DTYPES.values()))
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class Text(Vocabulary):
    """The vocabulary of a model folder, its chat template, and the tokens that end an answer."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        super().__init__(tokenizer, vocab_size)
        template = tokenizer.chat_template
        self.chat_template = template if isinstance(template, str) else None
        self.end_ids = end_token_ids(folder, tokenizer.eos_token_id)
