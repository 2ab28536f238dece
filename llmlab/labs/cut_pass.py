"""An experiment on the torch engine: a forward pass is cut, its blocks go back, and the same prompt is asked again.

llmlab never lets an interrupt land inside a step, and looks at every hit of a block pool that somebody else wrote. Here
both is given up, to see what then happens. This file must not know any lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.engines.base import EngineConfig
from llmlab.engines.torch_attention import Batch
from llmlab.engines.torch_paged import TorchEngine
from llmlab.models import get
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool, Content
from llmlab.scheduling.contracts import BlockPool
from llmlab.scheduling.scheduler import Scheduler
from llmlab.trace import Request, Step

BLOCK_SIZE, KV_TOKENS = 4, 128
# What another user asked before: its KV is what the memory holds.
BEFORE = "Dear diary, today the sea was green and my dog ate a whole cake with candles. "


@dataclass(frozen=True, slots=True)
class AfterInterrupt:
    """What came of it: tokens found in the cache, the answer, and the answer of an engine without a cache."""

    num_prompt_tokens: int
    num_hit_tokens: int
    answer: str
    expected: str

    @property
    def is_right(self) -> bool:
        return self.answer == self.expected

    def __repr__(self) -> str:
        return (
            f"After the interrupt {self.num_hit_tokens} of {self.num_prompt_tokens} prompt tokens were found in the "
            f"cache.\nthe answer:      {self.answer!r}\nwithout a cache: {self.expected!r}"
        )


class _Cut(Exception):
    """The interrupt."""


class _BelievedPool(CheckedPool):
    """What a lookup finds is believed."""

    def _check_hit(self, call: str, block: int, wanted: Content) -> None:
        pass


class _CutEngine(TorchEngine):
    """Its forward pass can be cut before it has written anything."""

    cuts_next = False

    def _empty_pool(self) -> tuple[PagedPool | CheckedPool, Scheduler]:
        _, scheduler = super()._empty_pool()
        wanted: Any = self._pool_wanted
        pool = _BelievedPool(wanted(self.room.num_blocks, self.room.block_size))
        return pool, Scheduler(
            pool, self._policy, token_budget=scheduler.token_budget, max_num_seqs=scheduler.max_num_seqs
        )

    def _hidden(self, batch: Batch) -> Any:
        if self.cuts_next:
            self.cuts_next = False
            raise _Cut
        return super()._hidden(batch)


def after_interrupt(
    block_pool: type[BlockPool], prompt: str, *, max_tokens: int = 12, model: str = "smollm2-135m"
) -> AfterInterrupt:
    """Ask a prompt (a text as it is), cut its forward pass, and ask it again: is the answer that of a fresh engine?

    `block_pool`: a class that takes (num_blocks, block_size). Raises: PartFailed when it is none.
    """
    found = get(model)
    config = EngineConfig(
        engine="torch", model=found.name, model_path=str(found.hf_dir), kv_tokens=KV_TOKENS, block_size=BLOCK_SIZE
    )
    engine = _CutEngine(config, block_pool=block_pool)
    try:
        token_ids = engine.tokenize(prompt)
        expected, _ = _ask(engine, "fresh", token_ids, max_tokens, salt="apart")
        before = engine.tokenize(BEFORE * 10)[: KV_TOKENS - BLOCK_SIZE]
        _ask(engine, "before", before, 1)
        engine.cuts_next = True
        try:
            _ask(engine, "cut", token_ids, max_tokens)
        except _Cut:
            engine.abort_request("cut")
        answer, num_hit_tokens = _ask(engine, "again", token_ids, max_tokens)
        told, wanted = (b"".join(engine.pieces(ids)).decode(errors="replace") for ids in (answer, expected))
    finally:
        engine.close()
    return AfterInterrupt(len(token_ids), num_hit_tokens, told, wanted)


def _ask(
    engine: TorchEngine, name: str, token_ids: Sequence[int], max_tokens: int, salt: str = ""
) -> tuple[list[int], int]:
    """The answer, and how many tokens of the prompt the cache had."""
    sampling = {"temperature": 0.0, "max_tokens": max_tokens}
    engine.add_request(
        Request(request_id=name, arrival_s=0.0, prompt_token_ids=tuple(token_ids), sampling=sampling, salt=salt)
    )
    answer: list[int] = []
    num_hits = 0
    while engine.has_unfinished_requests():
        step = engine.step()
        assert isinstance(step, Step)
        answer += [token.token_id for token in step.tokens if token.request_id == name]
        num_hits += step.prefix_hits.get(name, 0)
    return answer, num_hits
