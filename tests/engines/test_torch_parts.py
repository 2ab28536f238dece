"""Parts that a student wrote in the torch engine: right ones give the same answers, wrong ones earn a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llmlab
from llmlab.engines import registry
from llmlab.engines.base import SamplingParams
from llmlab.engines.torch_sampling import draw, probabilities
from llmlab.errors import EngineError, LlmlabError, PartFailed, PlanRefused
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.policies import ChunkedPrefill, StaticBatching
from tests.engines.serving import request, serve, token_ids
from tests.engines.torch_support import broken_rules, engine

ROOM = {"kv_tokens": 128, "max_num_seqs": 4, "token_budget": 16, "block_size": 4}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13 + i] for i in range(6)]
HOW: dict[str, Any] = dict(max_tokens=14, ignore_eos=True, temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, seed=5)


@pytest.fixture(scope="module")
def answers(tiny: Path) -> list[list[int]]:
    return answers_of(engine(tiny, **ROOM))


def answers_of(on: Any) -> list[list[int]]:
    trace = serve(on, [request(on, f"r{i}", p, **HOW) for i, p in enumerate(PROMPTS)])
    assert broken_rules(trace) == []
    return [token_ids(trace, f"r{i}") for i in range(len(PROMPTS))]


# ---- right ones, in numpy


class NumpySampler:
    def probs(self, logits, params):
        if params.temperature == 0:
            return np.eye(len(logits), dtype=np.float32)[logits.argmax()]
        x = logits.astype(np.float64) / params.temperature
        p = np.exp(x - x.max())
        p /= p.sum()
        p[p < params.min_p * p.max()] = 0
        order = np.argsort(-p, kind="stable")
        if params.top_k:
            p[order[params.top_k :]] = 0
        p /= p.sum()
        if params.top_p < 1:
            in_front = np.cumsum(p[order]) - p[order]
            p[order[in_front >= params.top_p]] = 0
        return (p / p.sum()).astype(np.float32)

    def draw(self, probs, u):
        return int(np.searchsorted(np.cumsum(probs, dtype=np.float64), u, side="right"))


def numpy_attention(q, k, v):
    n, num_heads, head_dim = q.shape
    group = num_heads // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    scores += np.triu(np.full((n, len(k)), -np.inf), len(k) - n + 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), v).astype(np.float32)


class PlainPool:
    """A student's block pool, without prefix caching."""

    def __init__(self, num_blocks, block_size):
        self.num_blocks, self.block_size = num_blocks, block_size
        self.free_list, self.tables, self.lengths = list(range(num_blocks)), {}, {}

    @property
    def num_free_blocks(self):
        return len(self.free_list)

    def allocate(self, seq_id, num_tokens):
        self.tables[seq_id], self.lengths[seq_id] = [], 0
        try:
            self.append(seq_id, num_tokens)
        except llmlab.errors.NoFreeBlocks:
            del self.tables[seq_id], self.lengths[seq_id]
            raise

    def append(self, seq_id, num_tokens=1):
        table, length = self.tables[seq_id], self.lengths[seq_id] + num_tokens
        missing = -(-length // self.block_size) - len(table)
        if missing > len(self.free_list):
            raise llmlab.errors.NoFreeBlocks("full")
        table += [self.free_list.pop() for _ in range(missing)]
        self.lengths[seq_id] = length
        return []

    def fork(self, parent_id, child_id):
        raise NotImplementedError

    def free(self, seq_id):
        self.free_list += self.tables.pop(seq_id)
        del self.lengths[seq_id]

    def block_table(self, seq_id):
        return tuple(self.tables[seq_id])

    def num_tokens(self, seq_id):
        return self.lengths[seq_id]

    def ref_count(self, block_id):
        return sum(block_id in table for table in self.tables.values())


class CachingPool(PagedPool):
    """Ours as if a student had written it: behind the checks."""


@pytest.mark.parametrize(
    "parts",
    [
        {"sampler": NumpySampler()},
        {"attention": numpy_attention},
        {"block_pool": PlainPool},
        {"block_pool": PlainPool(32, 4)},
        {"block_pool": CachingPool},
        {"policy": StaticBatching()},
        {
            "sampler": NumpySampler(),
            "attention": numpy_attention,
            "block_pool": CachingPool,
            "policy": ChunkedPrefill(),
        },
    ],
    ids=["sampler", "attention", "pool class", "pool object", "caching pool", "policy", "all"],
)
def test_a_part_written_in_numpy_gives_the_same_answers(tiny: Path, answers: list[list[int]], parts: dict[str, Any]):
    assert answers_of(engine(tiny, **ROOM, **parts)) == answers


def test_prefix_hits_of_a_students_pool_are_in_the_trace(tiny: Path):
    on = engine(tiny, block_pool=CachingPool, **ROOM)
    trace = serve(on, [request(on, f"r{i}", p, **HOW) for i, p in enumerate(PROMPTS)])
    assert broken_rules(trace) == [] and any(step.prefix_hits for step in trace.step_records)
    assert on.capabilities.prefix_caching and not engine(tiny, block_pool=PlainPool, **ROOM).capabilities.prefix_caching


# ---- wrong ones


class Leaks(PlainPool):
    def free(self, seq_id):
        self.tables[seq_id].pop()
        super().free(seq_id)


class GivesTheSameBlockTwice(PlainPool):
    def append(self, seq_id, num_tokens=1):
        held = len(self.tables[seq_id])
        super().append(seq_id, num_tokens)
        for block in self.tables[seq_id][held:]:
            self.free_list.insert(0, block)
        return []


class RaisesSomethingElse(PlainPool):
    def append(self, seq_id, num_tokens=1):
        if len(self.tables[seq_id]) > 2:
            return self.tables["nobody"]
        return super().append(seq_id, num_tokens)


class Poisoned(PagedPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        super().allocate(seq_id, num_tokens, cached_blocks)
        super().commit(seq_id, PROMPTS[0], 4 * len(cached_blocks) + num_tokens)


class NamesNobody(ChunkedPrefill):
    def schedule(self, state):
        return {"nobody": 1}


class DividesByZero(ChunkedPrefill):
    def schedule(self, state):
        return {"r0": 1 // len(state.running)}


class SumsToTwo(NumpySampler):
    def probs(self, logits, params):
        return 2 * super().probs(logits, params)


class WorksInPlace(NumpySampler):
    def probs(self, logits, params):
        logits /= params.temperature
        return super().probs(logits, params)


class DrawsWhatWasCut(NumpySampler):
    def draw(self, probs, u):
        return int(probs.argmin())


def forgets_heads(q, k, v):
    return numpy_attention(q, k, v)[:, :1]


def has_no_maximum(q, k, v):
    return np.full_like(q, np.nan)


WRONG = [
    ({"block_pool": Leaks}, PartFailed, r"step \d+: free\('r0'\): \d+ held \+ \d+ free is not 32: blocks leaked"),
    ({"block_pool": GivesTheSameBlockTwice}, PartFailed, r"step 0: allocate\('r0', 9\): 3 held \+ 32 free is not 32"),
    ({"block_pool": RaisesSomethingElse}, PartFailed, r"step \d+: append\('r0', 1\): KeyError: 'nobody', in line \d+"),
    ({"block_pool": Poisoned}, PartFailed, r"step 0: lookup\(\) of 9 tokens: it hits block \d, whose KV was never"),
    ({"policy": NamesNobody()}, PlanRefused, "step 0: 'nobody' is neither waiting nor running"),
    (
        {"policy": DividesByZero()},
        PartFailed,
        r"step 0: policy.schedule\(\): ZeroDivisionError: .*return {\"r0\": 1 //",
    ),
    ({"sampler": SumsToTwo()}, PartFailed, r"step \d: sampler.probs\(\): the probabilities sum to 2, expected 1"),
    ({"sampler": WorksInPlace()}, PartFailed, r"it changed the logits; work on a copy"),
    ({"sampler": DrawsWhatWasCut()}, PartFailed, r"it gave token \d+, whose probability is 0"),
    ({"attention": forgets_heads}, PartFailed, r"in layer 0 for r0: it gave shape \(9, 1, 32\), expected \(9, 4, 32\)"),
    ({"attention": has_no_maximum}, PartFailed, r"in layer 0 for r0: it gave NaN"),
]


@pytest.mark.parametrize(
    ("parts", "kind", "sentence"), WRONG, ids=lambda v: next(iter(v)) if isinstance(v, dict) else ""
)
def test_a_wrong_part_earns_a_sentence_and_the_engine_goes_on(
    tiny: Path, parts: dict[str, Any], kind: type[LlmlabError], sentence: str
):
    on = engine(tiny, **ROOM, **parts)
    for i in range(3):
        on.add_request(request(on, f"r{i}", PROMPTS[0], **HOW))
    with pytest.raises(kind, match=sentence):
        for _ in range(60):
            on.step()
    for i in range(3):  # what the loop does then
        on.abort_request(f"r{i}")
    for _ in range(3):
        if on.has_unfinished_requests():
            step = on.step()
            assert step.kv.num_free == on.pool.num_blocks
    assert not on.has_unfinished_requests() and on.pool.num_free_blocks == on.pool.num_blocks


# ---- our own sampler against the contract


@pytest.mark.parametrize("seed", range(20))
def test_the_batched_sampler_has_the_distribution_of_the_contract(seed: int):
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 3, (4, 500)).astype(np.float32)
    rows[0, :250] = rows[0, 250:]  # ties: the lower id first
    params = [
        SamplingParams(
            temperature=float(rng.uniform(0.3, 2)),
            top_k=int(rng.choice([0, 1, 7, 100])),
            top_p=float(rng.choice([1.0, 0.5, 0.95])),
            min_p=float(rng.choice([0.0, 0.02, 0.3])),
        )
        for _ in rows
    ]
    ours = probabilities(torch.tensor(rows), params).numpy()
    for row, one, got in zip(rows, params, ours, strict=True):
        expected = NumpySampler().probs(row, one)
        assert ((got > 0) == (expected > 0)).all() and np.abs(got - expected).max() < 1e-5
        assert draw(torch.tensor(got[None]), [0.37]) == [NumpySampler().draw(got, 0.37)]


# ---- through load()


@pytest.fixture
def unloaded():
    yield
    registry.unload(all=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unloaded")
def test_a_wrong_pool_reaches_the_notebook_as_a_sentence():
    eng = llmlab.load("smollm2-135m", engine="torch", kv_tokens=128, block_size=4, block_pool=Leaks)
    with pytest.raises(PartFailed, match=r"free\('.*'\): \d+ held \+ \d+ free is not 32: blocks leaked") as lesson:
        eng.generate("Hi", max_tokens=5, raw=True, ignore_eos=True)
    before = lesson.value.trace  # without the step that failed
    assert before.validate() == [] and [step.step for step in before.step_records] == [0, 1, 2, 3]
    assert before.kv(3).num_tokens.sum() == len(eng.tokenize("Hi")) + 3
    assert eng.alive and eng.trace.header.capabilities.kv == "blocks"


@pytest.mark.soak
@pytest.mark.usefixtures("unloaded")
def test_an_attention_of_the_notebook_runs_inline_and_one_that_travels_in_a_host():
    answers, weights = [], []
    for how in ({}, {"attention": numpy_attention}, {"attention": numpy_attention, "isolation": "host"}):
        with llmlab.load("smollm2-135m", engine="torch", ctx=96, options={"threads": 1}, **how) as eng:
            answers.append(eng.generate("The capital", max_tokens=6, temperature=0, raw=True).token_ids)
            weights.append(eng.inside(range(5, 85), layers=[3])["attention"][3])
    assert answers[0] == answers[1] == answers[2] and len(answers[0]) == 6
    assert weights[0].shape == (9, 80, 80) and all(np.allclose(weights[0], other, atol=1e-4) for other in weights)


@pytest.mark.slow
@pytest.mark.usefixtures("unloaded")
def test_a_notebook_sees_the_attention_of_every_step_of_a_real_run():
    with llmlab.load("smollm2-135m", engine="torch", ctx=64, options={"threads": 1}) as eng:
        with eng.probe(layers=[np.int64(1)]) as steps:
            run = eng.batch([[5, 6, 7, 8], [9, 10]], max_tokens=3, ignore_eos=True)
            run.wait()
        first, second = run.request_ids
        assert [step[first]["attention"][1].shape for step in steps] == [(9, 4, 4), (9, 1, 5), (9, 1, 6)]
        assert steps[0][second]["hidden"].shape == (31, 2, 576)
        with eng.probe() as nothing:
            pass
        assert nothing == []


def test_an_engine_that_takes_no_block_pool_says_so():
    with pytest.raises(
        EngineError, match=r"llama\.cpp keeps its KV cache in cells, not blocks: no block pool plugs in"
    ):
        llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", block_pool=PlainPool)
