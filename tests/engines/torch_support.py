"""Torch engines on tiny random models, ready in a moment, and on the embedded model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.torch_paged import TorchEngine
from llmlab.trace import Trace

PARTS = ("policy", "sampler", "block_pool", "attention")


def engine(folder: Path, *, options: Mapping[str, Any] | None = None, **config: Any) -> TorchEngine:
    parts = {name: config.pop(name) for name in PARTS if name in config}
    settings = {"threads": 1, **(options or {})}
    return TorchEngine(EngineConfig("torch", folder.name, str(folder), options=settings, **config), **parts)


def embedded(**config: Any) -> TorchEngine:
    model = models.get("smollm2-135m")
    return engine(model.hf_dir, fingerprint=model.fingerprint, **config)


def broken_rules(trace: Trace) -> list[str]:
    return [str(violation) for violation in trace.validate()]
