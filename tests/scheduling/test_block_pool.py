"""PagedPool: by hand, by random histories with every invariant after every call, and under the scheduler."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmlab.errors import LlmlabError, NoFreeBlocks, PartFailed
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool
from llmlab.scheduling.contracts import BlockCopy, BlockPool, PrefixCachingPool, SchedulerState
from llmlab.scheduling.policies import ChunkedPrefill
from llmlab.scheduling.scheduler import Scheduler, Share, StepPlan
from tests.scheduling.driver import Job
from tests.scheduling.paged_driver import PagedMemory, random_run, serve

A, B = [1, 1, 1, 1, 2, 2, 2, 2, 3], [1, 1, 1, 1, 2, 2, 2, 2, 9]


def filled(num_blocks: int = 6, **prompts: list[int]) -> PagedPool:
    """Blocks of 4, with these sequences computed one after the other."""
    pool = PagedPool(num_blocks, 4)
    for name, token_ids in prompts.items():
        hits = pool.lookup(token_ids)
        pool.allocate(name, len(token_ids) - 4 * len(hits), hits)
        pool.commit(name, token_ids, len(token_ids))
    return pool


def state(pool: PagedPool) -> tuple[object, ...]:
    return dict(pool._tables), list(pool._ref_counts), list(pool._free), dict(pool._hash_of), dict(pool._num_tokens)


def test_it_satisfies_both_contracts():
    assert isinstance(PagedPool(4, 4), BlockPool) and isinstance(PagedPool(4, 4), PrefixCachingPool)


def test_a_block_is_taken_for_every_four_tokens_and_the_last_may_be_partly_filled():
    pool = filled(a=A)
    assert pool.block_table("a") == (0, 1, 2) and pool.num_tokens("a") == 9 and pool.num_free_blocks == 3
    pool.append("a", 3)
    assert pool.block_table("a") == (0, 1, 2)
    pool.append("a")
    assert pool.block_table("a") == (0, 1, 2, 3)


def test_a_hash_appears_in_commit_and_not_before():
    pool = PagedPool(6, 4)
    pool.allocate("a", 9)
    assert pool.lookup(B) == []
    pool.commit("a", A, 4)
    assert pool.lookup(B) == [0]
    pool.commit("a", A, 9)
    assert pool.lookup(B) == [0, 1]


def test_at_least_one_token_is_left_to_compute():
    pool = filled(a=A)
    assert pool.lookup(A[:8]) == [0] and pool.lookup(A[:4]) == [] and pool.lookup([]) == []


def test_salts_and_beginnings_keep_equal_tokens_apart():
    pool = filled(a=A)
    assert pool.lookup(A, "adapter") == []
    assert pool.lookup([2, 2, 2, 2, 5]) == []


def test_a_hit_is_shared_and_stays_when_its_first_holder_ends():
    pool = filled(a=A, b=B)
    assert pool.block_table("b") == (0, 1, 3) and pool.ref_count(0) == 2
    pool.free("a")
    assert pool.ref_count(0) == 1 and pool.num_free_blocks == 3


def test_empty_blocks_are_used_before_cached_ones_and_the_end_of_a_prefix_goes_first():
    pool = filled(a=A)
    pool.free("a")
    assert pool.next_free(6) == (2, 3, 4, 5, 1, 0)
    pool.allocate("x", 17)
    assert pool.lookup(A) == [0]  # block 1 is gone: a prefix without its beginning would be useless


def test_a_hit_block_is_not_evicted_for_the_same_request():
    pool = filled(a=A)
    pool.free("a")
    pool.allocate("b", 16, pool.lookup(B))
    assert pool.block_table("b")[:2] == (0, 1) and len(set(pool.block_table("b"))) == 6


def test_who_writes_into_a_shared_partial_block_copies_it_first():
    pool = filled(a=A)
    pool.fork("a", "b")
    assert pool.append("b") == [BlockCopy(2, 3)] and pool.block_table("b") == (0, 1, 3)
    assert pool.append("a") == [] and pool.ref_count(2) == 1


def test_a_full_shared_block_needs_no_copy():
    pool = filled(a=A[:8])
    pool.fork("a", "b")
    assert pool.append("b") == [] and pool.block_table("b") == (0, 1, 2)


@pytest.mark.parametrize("call", ["allocate", "append", "copy"])
def test_a_refusal_changes_nothing(call: str):
    pool = filled(3, a=A)
    pool.fork("a", "b")
    before = state(pool)
    with pytest.raises(NoFreeBlocks, match=r"\d blocks are needed, 0 of 3 are free"):
        pool.allocate("c", 1) if call == "allocate" else pool.append("a", 4 if call == "append" else 1)
    assert state(pool) == before


def test_a_sequence_that_is_unknown_or_known_twice_is_an_error():
    pool = filled(a=A)
    with pytest.raises(ValueError, match="a has a block table already"):
        pool.allocate("a", 1)
    pool.free("a")
    with pytest.raises(KeyError):
        pool.free("a")


def test_rejected_drafts_give_their_room_back():
    pool = filled(a=A)
    pool.append("a", 8)
    pool.take_back("a", 10)
    assert pool.num_tokens("a") == 10 and pool.block_table("a") == (0, 1, 2) and pool.num_free_blocks == 3


# ---- random histories


class History(RuleBasedStateMachine):
    """Sequences with few different tokens over few blocks. CheckedPool looks at every invariant after every call."""

    @initialize(num_blocks=st.integers(4, 12), block_size=st.sampled_from([1, 2, 4]))
    def start(self, num_blocks: int, block_size: int) -> None:
        self.plain = PagedPool(num_blocks, block_size)
        self.pool = CheckedPool(self.plain)
        self.memory = PagedMemory(self.plain)
        self.tokens: dict[str, list[int]] = {}
        self.salts: dict[str, str] = {}
        self.num_computed: dict[str, int] = {}
        self.names = iter(f"s{i}" for i in range(10_000))

    def compute(self, name: str) -> None:
        """The forward pass over what is not computed, then the commit."""
        tokens, first = self.tokens[name], self.num_computed[name]
        self.memory.write(name, tokens, first, len(tokens) - first)
        self.num_computed[name] = len(tokens)
        self.pool.commit(name, tokens, len(tokens), self.salts[name])

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12), salt=st.sampled_from(["", "a"]))
    def admit(self, tokens: list[int], salt: str) -> None:
        name, hits = next(self.names), self.pool.lookup(tokens, salt)
        num_hit = len(hits) * self.plain.block_size
        try:
            self.pool.allocate(name, len(tokens) - num_hit, hits)
        except NoFreeBlocks:
            return
        self.tokens[name], self.salts[name], self.num_computed[name] = tokens, salt, num_hit
        self.compute(name)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), new=st.lists(st.integers(0, 1), min_size=1, max_size=5), is_cut=st.booleans())
    def go_on(self, data: st.DataObject, new: list[int], is_cut: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.tokens)))
        try:
            copies = self.pool.append(name, len(new))
        except NoFreeBlocks:
            return
        self.memory.copy(copies)
        if is_cut:  # the forward pass is broken off: the room goes back, nothing is committed
            self.plain.take_back(name, len(self.tokens[name]))
            self.pool._num_tokens[name] = len(self.tokens[name])
            self.pool._after("take_back")
            return
        self.tokens[name] = self.tokens[name] + new
        self.compute(name)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent, child = data.draw(st.sampled_from(sorted(self.tokens))), next(self.names)
        self.pool.fork(parent, child)
        for of in (self.tokens, self.salts, self.num_computed):
            of[child] = of[parent]

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tokens)))
        self.pool.free(name)
        del self.tokens[name], self.salts[name], self.num_computed[name]

    @invariant()
    def every_sequence_reads_its_own_tokens(self) -> None:
        for name, tokens in getattr(self, "tokens", {}).items():
            assert self.memory.read(name, len(tokens)) == [(t, i) for i, t in enumerate(tokens)]

    @invariant()
    def hashes_and_blocks_point_at_each_other(self) -> None:
        if hasattr(self, "plain"):
            assert {h: b for b, h in self.plain._hash_of.items()} == self.plain._block_with

    def teardown(self) -> None:
        for name in list(getattr(self, "tokens", {})):
            self.pool.free(name)
        if hasattr(self, "plain"):
            assert self.plain.num_free_blocks == self.plain.num_blocks


TestHistory = History.TestCase


# ---- under the scheduler


def test_any_schedule_gives_each_request_the_answer_it_has_alone_and_a_sound_trace():
    num_preempted = num_hits = 0
    for seed in range(150):
        jobs, trace, outputs = random_run(seed)
        assert [str(violation) for violation in trace.validate()] == [], f"seed {seed}"
        for name, got in outputs.items():
            _, alone = serve({name: Job(jobs[name].prompt, jobs[name].num_output_tokens)}, PagedPool(64, 4))
            assert got == alone[name], f"seed {seed}: {name}"
        num_preempted += sum(len(step.preempted) for step in trace.step_records)
        num_hits += sum(len(step.prefix_hits) for step in trace.step_records)
    assert num_preempted > 20 and num_hits > 100


# ---- planted bugs: each is caught, and the sentence names its cause


class LeaksTheLastBlock(PagedPool):
    def free(self, seq_id):
        self._tables[seq_id].pop()
        super().free(seq_id)


class FreesTwice(PagedPool):
    def free(self, seq_id):
        table = list(self._tables[seq_id])
        super().free(seq_id)
        if self._ref_counts[table[0]]:
            self._release(table[0])


class FreesWhatOthersHold(PagedPool):
    def _release(self, block):
        self._count(block, -self._ref_counts[block])
        self._free[block] = None


class CountsNoHit(PagedPool):
    def _hold(self, block):
        self._free.pop(block, None)
        if not self._ref_counts[block]:
            self._count(block, 1)


class LeavesAHitOnTheFreeList(PagedPool):
    def _hold(self, block):
        self._count(block, 1)


class KeepsAStaleHash(PagedPool):
    def _forget_hash(self, block):
        pass


class HashesWithoutTheBeginning(PagedPool):
    def _hashes(self, token_ids, num_blocks, salt, chain=()):
        for i in range(len(chain), num_blocks):
            alone = token_ids[i * self.block_size : (i + 1) * self.block_size]
            yield from PagedPool._hashes(self, alone, 1, salt)


class HashesWithoutTheSalt(PagedPool):
    def _hashes(self, token_ids, num_blocks, salt, chain=()):
        return PagedPool._hashes(self, token_ids, num_blocks, "", chain)


class HashesAPartialBlock(PagedPool):
    def commit(self, seq_id, token_ids, num_computed_tokens, salt=""):
        super().commit(seq_id, [*token_ids, 0, 0, 0], num_computed_tokens + 3, salt)


class HashesInAllocate(PagedPool):
    """The poisoned cache: what was never computed can be hit."""

    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        super().allocate(seq_id, num_tokens, cached_blocks)
        num_all = len(cached_blocks) * self.block_size + num_tokens
        super().commit(seq_id, [0] * num_all, num_all)


class HitsTheWholePrompt(PagedPool):
    def lookup(self, token_ids, salt=""):
        return super().lookup([*token_ids, 0], salt)


class AppendsATokenLate(PagedPool):
    def append(self, seq_id, num_tokens=1):
        self._num_tokens[seq_id] -= 1
        try:
            return super().append(seq_id, num_tokens)
        finally:
            self._num_tokens[seq_id] += 1


class TakesABlockTooMany(PagedPool):
    def allocate(self, seq_id, num_tokens, cached_blocks=()):
        super().allocate(seq_id, num_tokens, cached_blocks)
        if self._free:
            self._tables[seq_id].append(self._take())


class TakesBeforeItLooksForRoom(PagedPool):
    def append(self, seq_id, num_tokens=1):
        table = self._tables[seq_id]
        if self._ref_counts[table[-1]] > 1:
            return super().append(seq_id, num_tokens)
        for _ in range(self._blocks_for(self._num_tokens[seq_id] + num_tokens) - len(table)):
            self._need(1)
            table.append(self._take())
        self._num_tokens[seq_id] += num_tokens
        return []


class NeverCopies(PagedPool):
    def append(self, seq_id, num_tokens=1):
        counts, self._ref_counts = self._ref_counts, [min(1, count) for count in self._ref_counts]
        try:
            return super().append(seq_id, num_tokens)
        finally:
            self._ref_counts = [max(a, b) for a, b in zip(counts, self._ref_counts, strict=True)]


POOL_BUGS = [
    (LeaksTheLastBlock, "blocks leaked|has ref_count 1, but 0 block tables hold it"),
    (FreesTwice, "has ref_count 0, but 1 block tables hold it"),
    (FreesWhatOthersHold, "has ref_count 0, but 1 block tables hold it"),
    (CountsNoHit, "has ref_count 1, but 2 block tables hold it"),
    (LeavesAHitOnTheFreeList, "a held block is free as well|stands twice in the block table"),
    (KeepsAStaleHash, "is overwritten: a stale hash|whose KV is that of other tokens|under the salt"),
    (HashesWithoutTheBeginning, "the same after another beginning|never computed"),
    (HashesWithoutTheSalt, "which was filled under the salt"),
    (HashesAPartialBlock, "whose KV was never computed"),
    (HashesInAllocate, "whose KV was never computed|whose KV is that of other tokens"),
    (HitsTheWholePrompt, "one token must be left over"),
    (AppendsATokenLate, r"holds \d blocks of 4 for \d+ tokens, expected \d"),
    (TakesABlockTooMany, r"holds \d blocks of 4 for \d+ tokens, expected \d"),
    (TakesBeforeItLooksForRoom, "NoFreeBlocks after it had changed the pool"),
    (NeverCopies, "is shared and partly filled: it must return"),
]


def random_history(pool: PagedPool, seed: int) -> None:
    """Calls on a checked pool, as an engine makes them, and forks; raises what the checks raise."""
    rng, checked = random.Random(seed), CheckedPool(pool)
    tokens: dict[str, list[int]] = {}
    salts: dict[str, str] = {}
    for i in range(40):
        name = rng.choice(sorted(tokens)) if tokens else ""
        kind = rng.choice("admit admit append append fork free".split()) if tokens else "admit"
        if kind == "admit":
            name, prompt = f"s{i}", rng.choices(range(2), k=rng.randint(1, 12))
            salts[name] = rng.choice(["", "a"])
            hits = checked.lookup(prompt, salts[name])
            try:
                checked.allocate(name, len(prompt) - 4 * len(hits), hits)
            except NoFreeBlocks:
                continue
            tokens[name] = prompt
        elif kind == "append":
            new = rng.choices(range(2), k=rng.randint(1, 9))
            try:
                checked.append(name, len(new))
            except NoFreeBlocks:
                continue
            tokens[name] = tokens[name] + new
        elif kind == "fork":
            checked.fork(name, f"s{i}")
            tokens[f"s{i}"], salts[f"s{i}"] = tokens[name], salts[name]
            continue
        else:
            checked.free(name)
            del tokens[name]
            continue
        if rng.random() < 0.8:  # else the forward pass was broken off
            checked.commit(name, tokens[name], len(tokens[name]), salts[name])
        else:
            checked.free(name)
            del tokens[name]


@pytest.mark.parametrize(("pool_class", "sentence"), POOL_BUGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bug_in_a_pool_is_caught_by_the_call_that_makes_it(pool_class: type[PagedPool], sentence: str):
    with pytest.raises(PartFailed, match=sentence) as caught:
        for seed in range(200):
            random_history(pool_class(8, 4), seed)
    assert str(caught.value).startswith(("allocate", "append", "commit", "fork", "free", "lookup"))


def test_the_same_histories_on_a_sound_pool_break_nothing():
    for seed in range(200):
        random_history(PagedPool(8, 4), seed)


class ForgetsTheBudget(Scheduler):
    def _state(self):
        seen = super()._state()
        return SchedulerState(
            seen.step, seen.token_budget + 7, seen.max_num_seqs, seen.num_free_tokens, seen.waiting, seen.running
        )


class HasASeatTooMany(Scheduler):
    def _state(self):
        seen = super()._state()
        return SchedulerState(
            seen.step, seen.token_budget, seen.max_num_seqs + 1, seen.num_free_tokens, seen.waiting, seen.running
        )


class KeepsABlockOfAPreempted(Scheduler):
    def _preempt(self, plan):
        free = self.pool.free

        def wrong(seq_id):
            self.pool._tables[seq_id].pop()  # in no table, and not free
            free(seq_id)

        self.pool.free = wrong
        try:
            super()._preempt(plan)
        finally:
            del self.pool.free


class ForgetsThatItPreempted(Scheduler):
    def schedule(self):
        plan = super().schedule()
        plan.preempted.clear()
        return plan


class ComputesAHitAgain(Scheduler):
    def schedule(self):
        plan = super().schedule()
        plan.shares = [
            Share(s.seq, s.num_tokens, 0, s.phase) if s.seq.request_id in plan.prefix_hits else s for s in plan.shares
        ]
        return plan


class CommitsBeforeTheForwardPass(Scheduler):
    """Hashes appear for tokens that the budget left for later."""

    def commit(self, plan):
        super().commit(plan)
        for share in plan.shares:
            seq = share.seq
            num_held = min(seq.num_tokens, 4 * len(self.pool.block_table(seq.request_id)))
            self.pool.commit(seq.request_id, seq.token_ids, num_held, seq.salt)


class SchedulesWhoHasEnded(Scheduler):
    def finish(self, request_id):
        self.ended = super().finish(request_id)
        return self.ended

    def schedule(self):
        plan = super().schedule()
        if seq := self.__dict__.pop("ended", None):
            self.pool.allocate(seq.request_id, seq.num_tokens)
            plan.shares.append(Share(seq, 1, seq.num_tokens - 1, "decode"))
        return plan

    def commit(self, plan):
        super().commit(StepPlan(plan.step, [s for s in plan.shares if s.seq.request_id in self.running]))


SCHEDULER_BUGS = [
    (ForgetsTheBudget, r"\d+ tokens are scheduled, the budget is \d+"),
    (HasASeatTooMany, r"\d sequences run, max_num_seqs is \d"),
    (KeepsABlockOfAPreempted, r"block \d+ has ref_count 1, but 0 block tables hold it|held \+ .* free"),
    (ForgetsThatItPreempted, "computed tokens, expected|has a prefix hit of .* while it runs"),
    (ComputesAHitAgain, "is admitted with 0 computed tokens, its prefix hit is"),
    (CommitsBeforeTheForwardPass, r"gets a hash with \d of its 4 tokens computed"),
    (SchedulesWhoHasEnded, "is scheduled, it ended in step|gets .*it ended"),
]


@pytest.mark.parametrize(("scheduler_class", "sentence"), SCHEDULER_BUGS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_bug_in_the_scheduler_is_found_by_validate(scheduler_class: type[Scheduler], sentence: str):
    found = []
    for seed in range(60):
        try:
            _, trace, _ = random_run(seed, scheduler_class=scheduler_class)
        except (LlmlabError, KeyError, ValueError, IndexError):
            continue  # the bug broke the run itself
        found += [str(violation) for violation in trace.validate()[:1]]
    assert found
    assert [text for text in found if not re.search(sentence, text)] == []


class Starves(ChunkedPrefill):
    """Lets nobody in who is named r1."""

    def schedule(self, state):
        plan = super().schedule(state)
        plan.pop("r1", None)
        return plan


def test_starvation_is_refused_with_its_numbers():
    with pytest.raises(LlmlabError, match="starved: nothing was scheduled in 100 steps though 1 wait and 0 run"):
        serve({"r0": Job((1, 2), 2), "r1": Job((1, 2), 2)}, PagedPool(8, 4), policy=Starves())
