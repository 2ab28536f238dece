"""Several answers to one prompt on the torch engine: those that n requests give, from blocks that are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmlab
from llmlab.engines import registry
from llmlab.engines.prompts import PromptMaker
from llmlab.errors import NoFreeBlocks, PartFailed, RequestError
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.contracts import BlockCopy
from llmlab.trace import Request, Trace
from tests.engines.serving import request, serve, token_ids
from tests.engines.torch_support import broken_rules, engine

PROMPT = [5 + 7 * i % 500 for i in range(30)]
ROOM = {"kv_tokens": 320, "max_num_seqs": 8, "token_budget": 32, "block_size": 16}


class SharingPool:
    """A student's block pool: fork and copy on write, no prefix cache."""

    def __init__(self, num_blocks, block_size):
        self.num_blocks, self.block_size = num_blocks, block_size
        self.free_list, self.tables, self.lengths = list(range(num_blocks)), {}, {}
        self.counts = [0] * num_blocks

    @property
    def num_free_blocks(self):
        return len(self.free_list)

    def take(self):
        self.counts[self.free_list[-1]] = 1
        return self.free_list.pop()

    def allocate(self, seq_id, num_tokens):
        if -(-num_tokens // self.block_size) > len(self.free_list):
            raise NoFreeBlocks("full")
        self.tables[seq_id], self.lengths[seq_id] = [], 0
        self.append(seq_id, num_tokens)

    def append(self, seq_id, num_tokens=1):
        table, length = self.tables[seq_id], self.lengths[seq_id]
        missing = -(-(length + num_tokens) // self.block_size) - len(table)
        is_shared = length % self.block_size > 0 and self.counts[table[-1]] > 1
        if missing + is_shared > len(self.free_list):
            raise NoFreeBlocks("full")
        copies = []
        if is_shared:
            copies = [BlockCopy(table[-1], self.take())]
            self.counts[table[-1]] -= 1
            table[-1] = copies[0].dst
        table += [self.take() for _ in range(missing)]
        self.lengths[seq_id] = length + num_tokens
        return copies

    def fork(self, parent_id, child_id):
        self.tables[child_id], self.lengths[child_id] = list(self.tables[parent_id]), self.lengths[parent_id]
        for block in self.tables[child_id]:
            self.counts[block] += 1

    def free(self, seq_id):
        for block in self.tables.pop(seq_id):
            self.counts[block] -= 1
            if not self.counts[block]:
                self.free_list.append(block)
        del self.lengths[seq_id]

    def block_table(self, seq_id):
        return tuple(self.tables[seq_id])

    def num_tokens(self, seq_id):
        return self.lengths[seq_id]

    def ref_count(self, block_id):
        return self.counts[block_id]


class CannotFork(SharingPool):
    def fork(self, parent_id, child_id):
        raise NotImplementedError("fork")


class SharesTheTable(SharingPool):
    def fork(self, parent_id, child_id):
        super().fork(parent_id, child_id)
        self.tables[child_id] = self.tables[parent_id]


class CachingPool(PagedPool):
    """Ours as if a student had written it: behind the checks."""


def answers(on: Any, prompt: list[int] = PROMPT, n: int = 4, **sampling: Any) -> tuple[Trace, list[list[int]]]:
    """`n` answers to one prompt, with the seeds 7, 8, ..., as the handle sends them."""
    prompts = PromptMaker(7).make([prompt], n=n, max_tokens=12, ignore_eos=True, **sampling)
    requests = [
        Request(
            request_id=each.request_id, arrival_s=0.0, prompt_token_ids=each.token_ids, sampling=each.sampling,
            parent_id=each.parent_id,
        )
        for each in prompts
    ]  # fmt: skip
    trace = serve(on, requests)
    assert broken_rules(trace) == [] and on.pool.num_free_blocks == on.pool.num_blocks
    return trace, [token_ids(trace, each.request_id) for each in requests]


@pytest.fixture(scope="module")
def alone(tiny: Path):
    """The answer to one request of its own."""
    on = engine(tiny, options={"prefix_caching": False}, **ROOM)

    def answer(seed: int, prompt: list[int] = PROMPT, **sampling: Any) -> list[int]:
        how = dict(max_tokens=12, ignore_eos=True, seed=seed, **sampling)
        return token_ids(serve(on, [request(on, "r", prompt, **how)]), "r")

    return answer


PARTS = {
    "ours": {},
    "ours without prefix caching": {"options": {"prefix_caching": False}},
    "a student's": {"block_pool": SharingPool},
    "a student's with prefix caching": {"block_pool": CachingPool},
    "drafts": {"options": {"draft": True, "num_draft_tokens": 3}},
}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("parts", PARTS)
def test_n_answers_are_those_of_n_requests_and_share_the_prompt(tiny: Path, alone, parts: str, temperature: float):
    settings = PARTS[parts]
    if parts == "drafts":
        settings = {"options": {**settings["options"], "draft": str(tiny)}}
    trace, found = answers(engine(tiny, **ROOM, **settings), temperature=temperature)
    assert found == [alone(seed, temperature=temperature) for seed in (7, 8, 9, 10)]
    assert len(set(map(tuple, found))) == (4 if temperature else 1)
    prefill = [row for step in trace.step_records for row in step.scheduled if row.phase == "prefill"]
    assert sum(row.num_tokens for row in prefill) == 29 + 4
    assert max(count for step in trace.step_records for count in step.kv.ref_counts.values()) == 4
    assert sum(len(step.kv.copied) for step in trace.step_records) == 3


def test_n_answers_survive_preemption_and_other_requests(tiny: Path, alone):
    tight = engine(tiny, **{**ROOM, "kv_tokens": 64, "block_size": 4, "token_budget": 12})
    trace, found = answers(tight, temperature=0.9, n=6)
    assert found == [alone(seed, temperature=0.9) for seed in range(7, 13)]
    assert sum(len(step.preempted) for step in trace.step_records) > 1 and any(s.forked for s in trace.step_records)


@pytest.mark.parametrize(
    ("pool", "sentence"),
    [
        (CannotFork, r"step 0: fork\('r1', 'r2'\): NotImplementedError: fork, in line \d+ of fork\(\)"),
        (SharesTheTable, r"step 1: append\('r1', 1\): "),
    ],
)
def test_a_wrong_fork_earns_a_sentence(tiny: Path, pool: type[SharingPool], sentence: str):
    with pytest.raises(PartFailed, match=sentence):
        answers(engine(tiny, **ROOM, block_pool=pool))


# ---- as a user asks for them


def test_n_stands_for_as_many_requests_with_seeds_one_after_the_other():
    maker = PromptMaker(40)
    made = maker.make(["Hi", {"prompt": "Ho", "seed": 7}], n=2)
    assert [(p.request_id, p.parent_id, p.sampling["seed"]) for p in made] == [
        ("r1", "", 40), ("r2", "r1", 41), ("r3", "", 7), ("r4", "r3", 8),
    ]  # fmt: skip
    for n in (0, 1.5, True):
        with pytest.raises(RequestError, match=rf"n is {n}; it must be a whole number, 1 or more\."):
            maker.make(["Hi"], n=n)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_batch_of_one_prompt_gives_n_results_whose_trace_shows_the_forks():
    try:
        eng = llmlab.load("smollm2-135m", engine="torch", isolation="inline", ctx=128)
        how: dict[str, Any] = dict(max_tokens=6, temperature=0.8, ignore_eos=True, seed=3)
        with pytest.raises(RequestError, match=r"This gives one answer, n is 3. Use batch\(\[prompt\], n=3\)\."):
            eng.generate("Name a colour.", n=3)
        run = eng.batch(["Name a colour."], n=3, **how)
        found = [result.token_ids for result in run.wait()]
        assert found == [result.token_ids for result in eng.batch(["Name a colour."] * 3, **how).wait()]
        assert run.trace.validate() == [] and [s.forked for s in run.trace.step_records if s.forked] == [
            {"r2": "r1", "r3": "r1"}
        ]
    finally:
        registry.unload(all=True)
