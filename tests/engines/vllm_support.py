"""vLLM engines that load in seconds: on the embedded model, and on a tiny one with random weights."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.vllm import VllmEngine
from llmlab.trace import BlockDelta, Header, Request, Step, Trace
from llmlab.trace.block_state import BlockState
from tests.engines import serving
from tests.engines.serving import request, token_ids

SMALL = {"kv_tokens": 640, "max_model_len": 384, "token_budget": 128, "max_num_seqs": 8}
# Twelve prompts over 20 blocks of 32: every third begins with the same three blocks.
PREFIX = list(range(1000, 1096))
CROWD = [
    PREFIX + [2000 + i] * (5 + i) if i % 3 == 0 else [3000 + 7 * i + j for j in range(10 + 12 * i)] for i in range(12)
]
# The same for a model of few tokens: as long, and sharing as much.
TINY_PREFIX = list(range(1, 97))
TINY_CROWD = [
    TINY_PREFIX + [100 + i] * (5 + i) if i % 3 == 0 else [120 + 7 * i + j for j in range(10 + 12 * i)]
    for i in range(12)
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


def tiny_engine(folder: Path, **config: Any) -> FollowedEngine:
    """As engine(), in a hundredth of the time: what schedulers, blocks and adapters do hangs on no weights."""
    config = {**SMALL, "max_model_len": 256, **config}
    return FollowedEngine(EngineConfig("vllm", folder.name, str(folder), **config, options={"threads": 1}))


def serve(on: FollowedEngine, requests: Sequence[Request]) -> Trace:
    """Run these requests to their end; the trace of it."""
    header = on.header_now
    trace = serving.serve(on, requests)
    return Trace(header, trace.request_records, trace.step_records)


def crowd_equals_each_alone(on: FollowedEngine, crowd: Sequence[Sequence[int]], prefix: Sequence[int]) -> None:
    """Served together, with preemptions and shared prefixes, as each is alone."""
    asked: dict[str, Any] = dict(max_tokens=40, ignore_eos=True)
    together = serve(on, [request(on, f"r{i}", prompt, **asked) for i, prompt in enumerate(crowd)])
    steps = together.step_records
    assert sum(len(step.preempted) for step in steps) > 0
    assert sum(hit for step in steps for hit in step.prefix_hits.values()) >= 3 * len(prefix)
    assert together.validate() == []
    for i in (0, 4, 9):
        assert token_ids(serve(on, [request(on, "r", crowd[i], **asked)]), "r") == token_ids(together, f"r{i}")


def no_block_is_held(on: VllmEngine) -> bool:
    return on.core.num_free_blocks == on.core.num_blocks


def answers_outlive_25_stops(on: FollowedEngine, prompts: Sequence[Sequence[int]]) -> None:
    """Six prompts that share a prefix are served, then stopped at random moments, then served as before."""
    dice = random.Random(0)

    def answers() -> list[list[int]]:
        trace = serve(on, [request(on, f"r{i}", prompt, ignore_eos=True) for i, prompt in enumerate(prompts)])
        return [token_ids(trace, f"r{i}") for i in range(len(prompts))]

    before, header = answers(), on.header_now
    asked: list[Request] = []
    steps: list[Step] = []
    alive: list[str] = []
    while len([s for s in steps if "abort" in s.finished.values()]) < 25:
        while len(alive) < len(prompts):
            asked.append(request(on, f"s{len(asked)}", dice.choice(prompts), max_tokens=250, ignore_eos=True))
            on.add_request(asked[-1])
            alive.append(asked[-1].request_id)
        for _ in range(dice.randrange(4)):
            steps.append(on.step())
        on.abort_request(alive.pop(dice.randrange(len(prompts))))
        steps.append(on.step())
    for name in alive:
        on.abort_request(name)
    while on.has_unfinished_requests():
        steps.append(on.step())
    assert Trace(header, tuple(asked), tuple(steps)).validate() == []
    assert no_block_is_held(on)
    assert answers() == before
