"""The fake engine with logits: enough of an engine for a manifest, in no time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))

from fake_engine import FakeEngine

from llmlab.engines.base import EngineConfig, Floats

NUM_VOCAB = 500


class ParityEngine(FakeEngine):
    """Options beside those of FakeEngine: `noise` (added to logits), `words` (tokens have other bytes), `template`."""

    def __init__(self, config: EngineConfig) -> None:
        own = {name: config.options.pop(name, None) for name in ("noise", "words", "template")}
        super().__init__(config)
        self.own = own
        self.chat_template = own["template"] or self.chat_template

    def logits(self, token_ids: list[int]) -> Floats:
        rows = np.random.default_rng(len(token_ids)).normal(size=(len(token_ids), NUM_VOCAB)).astype(np.float32)
        rows[:, 7] += self.own["noise"] or 0.0
        return rows

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        pieces: list[bytes] = super().pieces(token_ids)
        return [piece.upper() for piece in pieces] if self.own["words"] == "other" else pieces


class NoLogits(FakeEngine):
    logits: Any = None
