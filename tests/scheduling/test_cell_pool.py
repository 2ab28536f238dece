"""The cell pool alone: every refusal leaves it as it was, every history keeps its books."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.cell_pool import CellPool, SeatOperation
from llmlab.scheduling.contracts import PrefixCachingPool


class CellPoolHistory(RuleBasedStateMachine):
    """Random calls against a cache that does what SeatOperations and place() say."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = CellPool(24, 6)
        self.tokens: dict[str, list[int]] = {}  # live sequences
        self.cache: dict[int, list[int]] = {}  # seat -> cells, as the real cache has them
        self.serial = 0

    def new_name(self) -> str:
        self.serial += 1
        return f"s{self.serial}"

    def books(self) -> tuple:
        pool = self.pool
        return (
            pool.num_free_blocks,
            {n: (pool.block_table(n), pool.num_tokens(n)) for n in self.tokens},
            pool.seats(),
            pool.cells_by_seat(),
        )

    @precondition(lambda self: len(self.tokens) < 5)
    @rule(prompt=st.lists(st.integers(0, 2), min_size=1, max_size=14))
    def admit(self, prompt: list[int]) -> None:
        cached, name, before = self.pool.lookup(prompt), self.new_name(), self.books()
        try:
            self.pool.allocate(name, len(prompt) - len(cached), cached)
        except NoFreeBlocks:
            assert self.books() == before
            return
        self.tokens[name] = prompt
        self.compute(name, len(prompt) - len(cached))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), new=st.lists(st.integers(0, 2), min_size=1, max_size=4))
    def grow(self, data: st.DataObject, new: list[int]) -> None:
        name, before = data.draw(st.sampled_from(sorted(self.tokens))), self.books()
        try:
            assert self.pool.append(name, len(new)) == []
        except NoFreeBlocks:
            assert self.books() == before
            return
        self.tokens[name] = [*self.tokens[name], *new]
        self.compute(name, len(new))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tokens)))
        self.pool.free(name)
        del self.tokens[name]
        self.repeat_operations()

    @precondition(lambda self: 0 < len(self.tokens) < 5)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent, child = data.draw(st.sampled_from(sorted(self.tokens))), self.new_name()
        free = self.pool.num_free_blocks
        self.pool.fork(parent, child)
        assert self.pool.num_free_blocks == free
        self.tokens[child] = list(self.tokens[parent])
        self.repeat_operations()

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tokens)))
        held = self.pool.block_table(name)
        if self.pool.num_free_blocks:
            self.pool.append(name, 1)
            self.pool.take_back(name, len(held))
            self.repeat_operations()
        assert self.pool.block_table(name) == held

    def compute(self, name: str, num_tokens: int) -> None:
        self.repeat_operations()
        cells = self.pool.place([(name, num_tokens)])
        used = {cell for held in self.cache.values() for cell in held}
        assert len(cells) == num_tokens and used.isdisjoint(cells)
        self.cache.setdefault(self.pool.seat(name), []).extend(cells)
        self.pool.commit(name, self.tokens[name], len(self.tokens[name]))

    def repeat_operations(self) -> None:
        for op in self.pool.take_operations():
            if op.kind == "share":
                assert not self.cache.get(op.seat)
                self.cache[op.seat] = self.cache[op.source][: op.num_tokens]
            else:
                del self.cache[op.seat][op.num_tokens :]

    @invariant()
    def the_real_cache_is_where_the_pool_thinks(self) -> None:
        assert {s: c for s, c in self.cache.items() if c} == self.pool.cells_by_seat()

    @invariant()
    def held_and_free_cells_are_all_cells(self) -> None:
        held = {cell for name in self.tokens for cell in self.pool.block_table(name)}
        assert len(held) + self.pool.num_free_blocks == self.pool.num_blocks
        for cell in range(self.pool.num_blocks):
            assert self.pool.ref_count(cell) == sum(cell in self.pool.block_table(n) for n in self.tokens)

    @invariant()
    def lookup_finds_the_longest_prefix(self) -> None:
        for name, tokens in self.tokens.items():
            assert len(self.pool.lookup([*tokens, 99])) == len(tokens), name


TestCellPoolHistory = CellPoolHistory.TestCase


def computed(pool: CellPool, name: str, tokens: list[int]) -> None:
    cached = pool.lookup(tokens)
    pool.allocate(name, len(tokens) - len(cached), cached)
    pool.place([(name, len(tokens) - len(cached))])
    pool.commit(name, tokens, len(tokens))


def test_it_satisfies_the_contract_of_a_prefix_caching_pool():
    assert isinstance(CellPool(8, 2), PrefixCachingPool)


def test_a_finished_sequence_is_found_again_and_its_cells_count_as_free():
    pool = CellPool(16, 4)
    computed(pool, "a", [1, 2, 3, 4])
    pool.free("a")
    assert pool.num_free_blocks == 16
    assert pool.lookup([1, 2, 3, 9]) == [0, 1, 2]
    assert pool.lookup([1, 2, 3]) == [0, 1]  # one token is left over, for its logits


def test_the_least_recently_used_prefix_is_evicted_first():
    pool = CellPool(8, 6)
    computed(pool, "old", [1, 1, 1])
    computed(pool, "new", [2, 2, 2])
    pool.free("old")
    pool.free("new")
    computed(pool, "c", [3, 3, 3, 3])
    assert pool.lookup([1, 1, 1, 0]) == []
    assert pool.lookup([2, 2, 2, 0]) == [3, 4, 5]


def test_older_prefixes_are_kept_only_while_all_that_is_kept_stays_small():
    pool = CellPool(32, 8, max_kept_cells=5)
    for name, token_ids in {"a": [1, 1], "b": [2, 2, 2], "c": [3, 3]}.items():
        computed(pool, name, token_ids)
        pool.free(name)
    assert [len(pool.lookup([token] * 4)) for token in (1, 2, 3)] == [0, 3, 2]
    computed(pool, "long", [4] * 9)
    pool.free("long")
    assert [len(pool.lookup([token] * 10)) for token in (2, 3, 4)] == [0, 0, 9]  # the last one stays whole


def test_an_aborted_step_leaves_nothing_to_find():
    pool = CellPool(8, 4)
    pool.allocate("a", 4)
    pool.free("a")
    assert pool.num_free_blocks == 8 and pool.lookup([1, 2, 3]) == [] and pool.seats() == {}


def test_a_salt_hides_a_prefix_from_others():
    pool = CellPool(8, 4)
    pool.allocate("a", 3)
    pool.place([("a", 3)])
    pool.commit("a", [1, 2, 3], 3, "alice")
    assert pool.lookup([1, 2, 3, 4], "bob") == []
    assert len(pool.lookup([1, 2, 3, 4], "alice")) == 3


def test_a_preempted_sequence_takes_its_own_seat_again():
    pool = CellPool(16, 4)
    computed(pool, "a", [1, 2, 3, 4])
    seat = pool.seat("a")
    pool.free("a")
    pool.take_operations()
    pool.allocate("a", 1, pool.lookup([1, 2, 3, 4, 5]))
    assert pool.seat("a") == seat and pool.take_operations() == []
    pool.free("a")
    pool.allocate("a", 2, [0, 1])
    assert pool.take_operations() == [SeatOperation("cut", seat, 2)]


def test_cells_are_placed_where_llama_cpp_looks_first():
    pool = CellPool(8, 4, prefix_caching=False)
    computed(pool, "a", [1, 1, 1])
    computed(pool, "b", [2, 2])
    pool.free("a")
    assert pool.head == 0  # the head goes back to the first freed cell
    computed(pool, "c", [3, 3, 3, 3])
    assert pool.block_table("c") == (0, 1, 2, 5)  # holes first, then behind b: cells need not be contiguous


def test_without_prefix_caching_nothing_is_found_not_even_of_those_who_run():
    pool = CellPool(8, 4, prefix_caching=False)
    computed(pool, "a", [1, 2, 3])
    assert pool.lookup([1, 2, 3, 4]) == []


def test_a_full_pool_refuses_and_changes_nothing():
    pool = CellPool(4, 4)
    computed(pool, "a", [1, 2, 3])
    with pytest.raises(NoFreeBlocks) as refused:
        pool.allocate("b", 2)
    assert str(refused.value) == "2 cells are needed, 1 of 4 are free"
    assert pool.seats() == {0: "a"} and pool.num_free_blocks == 1
