"""llama.cpp engines on the embedded model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp import LlamaCppEngine


def engine(quant: str = "Q4_1", *, options: Mapping[str, Any] | None = None, **config: Any) -> LlamaCppEngine:
    plug_ins = {name: config.pop(name) for name in ("policy", "sampler") if name in config}
    path = str(models.get("smollm2-135m").gguf(quant))
    config = {"quant": quant, "options": dict(options or {}), **config}
    return LlamaCppEngine(EngineConfig("llamacpp", "smollm2-135m", path, **config), **plug_ins)
