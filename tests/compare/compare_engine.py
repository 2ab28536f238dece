"""The fake engine, with what a comparison needs of two engines that are not alike."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))

from fake_engine import FakeEngine

from llmlab.engines.base import EngineConfig
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Step, Token


class CompareEngine(FakeEngine):
    """Options beside those of FakeEngine: `part_at` (the index of a token that is an X), `shaky` (only in company),
    `bos` (how many ^ begin a prompt), `die_at` (a step in which the process ends)."""

    def __init__(self, config: EngineConfig) -> None:
        own: dict[str, Any] = {name: config.options.pop(name, None) for name in ("part_at", "shaky", "bos", "die_at")}
        super().__init__(config)
        self.own = own

    def tokenize(self, text: str) -> list[int]:
        return [ord("^")] * (self.own["bos"] or 0) + super().tokenize(text)

    def step(self) -> Step:
        if self.own["die_at"] is not None and self.scheduler.step_number >= self.own["die_at"]:
            os._exit(7)
        return super().step()

    def _sample(self, seq: Sequence, stopped_by: dict[str, str]) -> Token:
        token = super()._sample(seq, stopped_by)
        is_in_company = len(self.scheduler.running) > 1
        if seq.num_output_tokens - 1 != self.own["part_at"] or (self.own["shaky"] and not is_in_company):
            return token
        seq.token_ids[-1] = ord("X")
        return msgspec.structs.replace(token, token_id=ord("X"), text="X")
