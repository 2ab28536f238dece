"""ContiguousPool: reservations in one run, first fit, and memory that is free and yet of no use."""

from __future__ import annotations

import pytest

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contiguous_pool import ContiguousPool
from llmlab.scheduling.contracts import BlockPool, PrefixCachingPool


def test_it_is_a_pool_that_shares_nothing():
    pool = ContiguousPool(8, 4, 16)
    assert isinstance(pool, BlockPool)
    assert not isinstance(pool, PrefixCachingPool)


def test_a_sequence_gets_its_longest_possible_length_at_once_and_nothing_later():
    pool = ContiguousPool(num_blocks=10, block_size=4, num_reserved=14)
    pool.allocate("a", 3)
    assert (pool.block_table("a"), pool.num_free_blocks) == ((0, 1, 2, 3), 6)
    assert pool.append("a", 13) == []
    assert (pool.block_table("a"), pool.num_tokens("a")) == ((0, 1, 2, 3), 16)
    with pytest.raises(NoFreeBlocks, match="a needs room for 17 tokens, 16 were reserved for it"):
        pool.append("a")
    assert pool.num_tokens("a") == 16


def test_free_memory_in_short_runs_serves_nobody_and_a_refusal_changes_nothing():
    pool = ContiguousPool(num_blocks=9, block_size=1, num_reserved=2)
    for name in "abcd":
        pool.allocate(name, 1)
    pool.free("a")
    pool.free("c")
    assert (pool.num_free_blocks, pool.longest_free_run) == (5, 2)
    before = pool.next_free(9), {name: pool.block_table(name) for name in "bd"}
    with pytest.raises(NoFreeBlocks, match="4 blocks in one run are needed; 5 of 9 are free, the longest run has 2"):
        pool.allocate("long", 4)
    assert (pool.next_free(9), {name: pool.block_table(name) for name in "bd"}) == before


def test_neighbours_become_one_run_again():
    pool = ContiguousPool(num_blocks=6, block_size=1, num_reserved=2)
    for name in "abc":
        pool.allocate(name, 1)
    for name in "acb":
        pool.free(name)
    assert (pool.longest_free_run, pool.ref_count(0)) == (6, 0)
    with pytest.raises(KeyError):
        pool.free("a")
