"""LoRA adapters by their path: each is given to vLLM once, before the first request that names it.

This file must not know requests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlab.errors import ModelError
from llmlab.models.lora import peft_folder

_WEIGHTS = "adapter_model.safetensors"


class Adapters:
    """Raises: ModelError when the adapter for all requests cannot be used."""

    def __init__(self, add: Callable[[Any], None], max_rank: int | None, *, default: str | None = None) -> None:
        """`add`: vLLM's add_lora(). `max_rank`: None when the engine takes no adapters. `default`: for all requests."""
        self._add, self._max_rank = add, max_rank
        self._known: dict[tuple[str, int], Any] = {}  # path and age of the weights -> LoRARequest
        self._default = self.request(default) if default else None

    def request(self, path: str | None) -> Any:
        """vLLM's LoRARequest for a PEFT folder; that of all requests, or None, when no path is given.

        Raises: ModelError when there is no adapter, or vLLM cannot use it.
        """
        if path is None:
            return self._default
        if self._max_rank is None:
            raise ModelError(
                f"This engine was loaded without room for LoRA adapters, so {path} cannot be used. "
                "Load it with `--opt enable_lora=true`, or with `--lora PATH` for one that all use."
            )
        folder = peft_folder(path)
        key = (str(folder), (folder / _WEIGHTS).stat().st_mtime_ns)
        if key not in self._known:
            self._known[key] = self._added(folder, len(self._known) + 1)
        return self._known[key]

    def _added(self, folder: Path, number: int) -> Any:
        from vllm.lora.request import LoRARequest

        rank = json.loads((folder / "adapter_config.json").read_text()).get("r", 0)
        assert self._max_rank is not None
        if rank > self._max_rank:
            raise ModelError(
                f"The adapter {folder} has rank {rank}, this engine has room for {self._max_rank}. "
                f"Load it with `--opt max_lora_rank={rank}`."
            )
        # vLLM keeps prefixes apart by this name, so a new file at an old path needs another one.
        request = LoRARequest(f"{folder.name}-{number}", number, str(folder))
        try:
            self._add(request)
        except Exception as error:  # whatever its loader meets in a foreign file
            raise ModelError(f"vLLM cannot use the LoRA adapter {folder} ({error}).") from error
        return request
