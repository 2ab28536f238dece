"""Trace.validate() on KV: deltas that contradict themselves or what was scheduled, in blocks and in cells."""

from __future__ import annotations

from typing import Any

import hand_written
import pytest
from hand_written import (
    from_step,
    preemption_in_blocks,
    prefix_sharing_in_cells,
    share,
    state_after,
    step,
    with_header,
    with_kv,
    with_request,
    with_step,
)
from msgspec.structs import replace

from llmlab.trace import BlockDelta, CellDelta, Request, Trace, Violation
from llmlab.trace.block_state import BlockState
from llmlab.trace.cell_state import CellState
from llmlab.trace.example import two_requests
from llmlab.trace.rules import Rule

BLOCKS, CELLS, PREEMPTED = two_requests(), prefix_sharing_in_cells(), preemption_in_blocks()


def blocks(number: int, **changes: Any) -> Trace:
    return with_kv(BLOCKS, number, **changes)


def cells(number: int, **changes: Any) -> Trace:
    return with_kv(CELLS, number, **changes)


# (what is broken, the sentences)
FAULTS: list[tuple[Trace, list[tuple[int | None, Rule, str]]]] = [
    # ---- blocks
    (blocks(0, num_free=7), [(0, "total", "2 blocks held + 7 free are not 8 in all")]),
    (
        blocks(1, num_blocks=9, num_free=6),
        [
            (1, "total", "the cache has 9 blocks, before it had 8"),
            (2, "total", "the cache has 8 blocks, before it had 9"),
        ],
    ),
    (blocks(1, ref_counts={2: 1}), [(1, "ref_count", "block 0 has ref_count 1, but 2 block tables hold it")]),
    (blocks(0, ref_counts={0: 1, 1: 2}), [(0, "ref_count", "block 1 has ref_count 2, but 1 block table holds it")]),
    (
        blocks(2, freed={"a": (0,), "b": (0, 2)}, ref_counts={0: 0, 2: 0}, num_free=7),
        [(2, "kv_length", "a has ended and still holds block 1")],
    ),
    (
        blocks(2, freed={"a": (0, 1, 2), "b": (0, 2)}),
        [(2, "kv", "a frees block 2, which it does not hold")],
    ),
    (blocks(2, freed={"a": (0, 1, 1), "b": (0, 2)}), [(2, "kv", "a frees a block twice: [0, 1, 1]")]),
    # b gets a block that a still uses
    (
        blocks(1, allocated={"b": (0, 1)}, ref_counts={0: 2, 1: 1}, num_free=6),
        [(1, "ref_count", "block 1 has ref_count 1, but 2 block tables hold it")],
    ),
    (
        blocks(1, allocated={"b": (0, 0)}, ref_counts={0: 2}, num_free=6),
        [
            (1, "kv", "block 0 stands twice in the block table of b"),
            (1, "kv_length", "b holds 1 block of 4 for 5 computed tokens, expected 2"),
            (2, "kv", "b frees block 2, which it does not hold"),
        ],
    ),
    (
        blocks(1, allocated={"b": (0,)}, ref_counts={0: 2}, num_free=6),
        [
            (1, "kv_length", "b holds 1 block of 4 for 5 computed tokens, expected 2"),
            (2, "kv", "b frees block 2, which it does not hold"),
        ],
    ),
    (
        blocks(1, allocated={"b": (0, 2), "z": (3,)}, ref_counts={0: 2, 2: 1, 3: 1}, num_free=4),
        [
            (1, "request", "z gets block 3, but has no request record"),
            (2, "total", "1 block held + 8 free are not 8 in all"),
        ],
    ),
    (
        blocks(1, evicted=(0,)),
        [
            (1, "kv", "block 0 loses its hash while a holds it"),
            (1, "prefix", "b hits block 0, which has no hash"),
        ],
    ),
    (blocks(1, evicted=(5,)), [(1, "kv", "block 5 loses its hash, it has none")]),
    (blocks(1, cached=(0,)), [(1, "kv", "block 0 gets a hash, it has one already")]),
    (blocks(0, cached=()), [(1, "prefix", "b hits block 0, which has no hash")]),
    (blocks(0, cached=(0, 1)), [(0, "prefix", "block 1 gets a hash with 1 of its 4 tokens computed")]),
    (
        with_request(BLOCKS, "b", prompt_token_ids=(1, 2, 2, 4, 9)),
        [(1, "prefix", "b hits block 0, which a filled with other tokens")],
    ),
    (with_request(BLOCKS, "b", salt="b"), [(1, "prefix", "b hits block 0, which a filled with other tokens")]),
    (
        blocks(0, allocated={"a": (0, 12)}, ref_counts={0: 1, 12: 1}),
        [
            (0, "kv", "a gets block 12, the cache has 8"),
            (2, "kv", "a frees block 1, which it does not hold"),
            (2, "total", "1 block held + 8 free are not 8 in all"),
            (2, "kv_length", "a has ended and still holds block 12"),
        ],
    ),
    (
        with_kv(PREEMPTED, 1, freed={}, ref_counts={2: 1}, num_free=0),
        [
            (2, "total", "1 block held + 3 free are not 3 in all"),
            (2, "preempted", "q was preempted in the step before and still holds block 1"),
            (3, "kv", "block 1 stands twice in the block table of q"),
        ],
    ),
    (
        with_kv(PREEMPTED, 3, allocated={"q": (1, 0), "p": (2,)}, ref_counts={0: 1, 1: 1, 2: 1}, num_free=0),
        [
            (3, "end", "p gets block 2, it ended in step 2"),
            (4, "total", "1 block held + 3 free are not 3 in all"),
        ],
    ),
    (
        with_step(BLOCKS, 1, kv=CellDelta(num_used=0, num_cells=4, num_attended=0)),
        [(1, "kv", "a delta of cells in a trace of blocks"), (2, "kv", "b frees blocks 0, 2, which it does not hold")],
    ),
    # ---- cells
    (cells(0, num_used=6), [(0, "total", "the deltas leave 5 cells used, the engine counts 6")]),
    (
        with_header(CELLS, num_cells=32),
        [(0, "total", "the cache has 16 cells, before it had 32")],
    ),
    (
        cells(1, written={"a": ((4, 5, 1),), "b": ((6, 4, 1),)}, num_used=6),
        [
            (1, "kv", "a writes cell 4, which it held already"),
            (1, "kv_length", "a holds 5 cells, its computed tokens are 6"),
        ],
    ),
    (
        cells(1, written={"a": ((5, 5, 1),), "b": ((5, 4, 1),)}, num_used=6),
        [(1, "kv", "b writes cell 5, which a held")],
    ),
    (
        cells(1, written={"a": ((5, 6, 1),), "b": ((6, 4, 1),)}),
        [(1, "kv", "cell 5 is written for a at position 6, expected 5")],
    ),
    (
        cells(1, written={"a": ((5, 5, 1),), "b": ((6, 4, 1),), "c": ((7, 0, 1),)}, num_used=8),
        [(1, "kv", "cells are written for c, which was not scheduled")],
    ),
    (
        cells(1, written={"a": ((5, 5, 1),), "b": ((16, 4, 1),)}, num_used=6),
        [
            (1, "kv", "b names cell 16, the cache has 16"),
            (1, "kv_length", "b holds 4 cells, its computed tokens are 5"),
        ],
    ),
    (
        cells(1, shared={"b": ((0, 3),)}),
        [(1, "kv_length", "b holds 4 cells, its computed tokens are 5")],
    ),
    (
        cells(1, shared={"b": ((1, 4),)}),
        [
            (1, "prefix", "b shares cell 4 of a, but their tokens differ up to position 4"),
            (1, "kv_length", "b holds no cell at position 0"),
        ],
    ),
    (
        cells(3, shared={"c": ((0, 5), (7, 1))}),
        [
            (3, "prefix", "c shares cell 7 of a, but their tokens differ up to position 6"),
            (3, "kv_length", "c holds no cell at position 5"),
        ],
    ),
    (
        cells(3, shared={"c": ((0, 5), (6, 1))}, freed={"b": ((0, 4), (8, 1))}, num_used=9),
        [
            (3, "prefix", "c shares cell 6 of b, but their tokens differ up to position 4"),
            (3, "kv_length", "c holds two cells at position 4"),
        ],
    ),
    (cells(1, shared={"b": ((0, 4), (12, 2))}), [(1, "kv", "b shares cells 12-13, which are empty")]),
    (
        with_request(CELLS, "b", salt="b"),
        [(1, "prefix", "b shares cell 0 of a, but their tokens differ up to position 0")],
    ),
    (
        cells(2, freed={"b": ((5, 1),)}),
        [(2, "kv", "b frees cell 5, which it does not hold")],
    ),
    (
        cells(2, freed={"a": ((0, 1),)}),
        [(2, "kv_length", "a holds 6 cells, its computed tokens are 7")],
    ),
    (
        cells(3, shared={"a": ((9, 1),), "c": ((0, 6),)}),
        [(3, "end", "a shares cells, it ended in step 2")],
    ),
    (
        cells(3, shared={"z": ((0, 1),), "c": ((0, 6),)}),
        [(3, "request", "z shares cells, but has no request record")],
    ),
    (
        with_step(CELLS, 3, kv=BlockDelta(num_free=1, num_blocks=1)),
        [(3, "kv", "a delta of blocks in a trace of cells")],
    ),
]


@pytest.mark.parametrize(("trace", "expected"), FAULTS, ids=[fault[1][0][2] for fault in FAULTS])
def test_a_planted_fault_gives_these_sentences(trace: Trace, expected: list[tuple[int | None, Rule, str]]):
    """Up to the step where it shows: what follows in the unchanged rest of the trace may contradict it again."""
    last = expected[-1][0] or 0
    found = [violation for violation in trace.validate() if violation.step is None or violation.step <= last]
    assert found == [Violation(*violation) for violation in expected]


def test_a_cache_that_begins_broken_is_told_before_the_first_step():
    trace = from_step(BLOCKS, 1, replace(state_after(BLOCKS, 1), num_free=5))
    assert [str(violation) for violation in trace.validate()] == [
        "trace: 2 blocks held + 5 free are not 8 in all (total)",
    ]


def test_a_count_that_stays_wrong_is_told_once():
    trace = BLOCKS
    for number, num_free in enumerate((5, 4, 7)):
        trace = with_kv(trace, number, num_free=num_free)
    assert [str(violation) for violation in trace.validate()] == [
        "step 0: 2 blocks held + 5 free are not 8 in all (total)"
    ]


def test_engines_that_speculate_may_hold_a_block_ahead():
    ahead = blocks(0, allocated={"a": (0, 1, 3)}, ref_counts={0: 1, 1: 1, 3: 1}, num_free=5)
    ahead = with_kv(ahead, 1, num_free=4)
    ahead = with_kv(ahead, 2, freed={"a": (0, 1, 3), "b": (0, 2)}, ref_counts={0: 0, 1: 0, 2: 0, 3: 0})
    assert [violation.rule for violation in ahead.validate()] == ["kv_length", "kv_length"]
    capabilities = replace(ahead.header.capabilities, speculative=True)
    assert with_header(ahead, capabilities=capabilities).validate() == []


def test_a_step_without_a_delta_says_nothing_about_kv():
    trace = with_step(BLOCKS, 1, kv=None)
    last = trace.step_records[2].kv
    assert isinstance(last, BlockDelta)
    assert with_kv(trace, 2, freed={"a": (0, 1)}, ref_counts={0: 0, 1: 0}).validate() == []


def test_a_prefix_hit_in_blocks_is_a_multiple_of_the_block_size():
    trace = with_header(BLOCKS, block_size=3)
    assert Violation(1, "prefix", "b has a prefix hit of 4 tokens, blocks have 3") in trace.validate()


def test_a_block_of_an_answer_of_one_step_may_be_hit_by_its_own_tokens():
    """x gets block 1, is done and gives it back within step 1: no delta tells whose tokens block 1 holds."""
    header = replace(PREEMPTED.header, capabilities=replace(PREEMPTED.header.capabilities, prefix_caching=True))
    ids = {"w": (9, 9, 9, 9), "x": (1, 2, 3, 4), "y": (1, 2, 3, 4, 5)}
    asked = tuple(Request(request_id=r, arrival_s=0.0, prompt_token_ids=prompt) for r, prompt in ids.items())
    steps = (
        step(
            0,
            [share("w", "prefill", 4, 0, 4, 0)],
            hand_written.blocks(2, allocated={"w": (1,)}, ref_counts={1: 1}),
            {"w": 7},
        ),
        step(
            1,
            [share("x", "prefill", 4, 0, 4, 0)],
            hand_written.blocks(3, freed={"w": (1,)}, cached=(1,), ref_counts={1: 0}),
            {"x": 7},
            finished={"w": "abort", "x": "length"},
        ),
        step(
            2,
            [share("y", "prefill", 1, 4, 5, 0)],
            hand_written.blocks(1, allocated={"y": (1, 0)}, ref_counts={1: 1, 0: 1}),
            {"y": 7},
            prefix_hits={"y": 4},
        ),
        step(
            3,
            [share("y", "decode", 1, 5, 5, 1)],
            hand_written.blocks(3, freed={"y": (1, 0)}, ref_counts={1: 0, 0: 0}),
            {"y": 7},
            finished={"y": "stop"},
        ),
    )
    assert Trace(header, asked, steps).validate() == []


def test_a_block_may_be_hit_that_its_first_holder_got_and_left_within_the_same_step():
    """x and y begin alike and are admitted together: y hits the block of x, which ends. No delta tells x's blocks."""
    header = replace(PREEMPTED.header, capabilities=replace(PREEMPTED.header.capabilities, prefix_caching=True))
    ids = {"w": (9, 9, 9), "x": (1, 2, 3, 4), "y": (1, 2, 3, 4, 5)}
    asked = tuple(Request(request_id=r, arrival_s=0.0, prompt_token_ids=prompt) for r, prompt in ids.items())
    hit = hand_written.blocks(1, allocated={"y": (1, 0)}, cached=(1,), ref_counts={0: 1, 1: 1})
    steps = (
        step(0, [share("w", "prefill", 3, 0, 3, 0)], blocks_of("w", 1), {"w": 7}),
        step(1, [share("w", "decode", 1, 3, 3, 1)], blocks_back("w", 1), {"w": 7}, finished={"w": "stop"}),
        step(
            2,
            [share("x", "prefill", 4, 0, 4, 0), share("y", "prefill", 1, 4, 5, 0)],
            hit,
            {"x": 7, "y": 7},
            prefix_hits={"y": 4},
            finished={"x": "length"},
        ),
        step(3, [share("y", "decode", 1, 5, 5, 1)], blocks_back("y", 1, 0), {"y": 7}, finished={"y": "stop"}),
    )
    assert Trace(header, asked, steps).validate() == []


# ---- what only some engines tell


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"free_head": (7, 3)}, []),
        ({"free_head": (7, 1)}, ["block 1 is said to be handed out next, a holds it"]),
        ({"free_head": (7, 7)}, ["[7, 7] are said to be handed out next, of 6 free blocks"]),
        ({"groups": {"a": (0,)}}, ["a gets 2 blocks, 1 of them have a group"]),
    ],
)
def test_the_free_queue_and_the_groups_are_checked(changes: dict[str, Any], expected: list[str]):
    assert [violation.text for violation in blocks(0, **changes).validate() if violation.step == 0] == expected


def test_with_several_groups_a_request_may_hold_more_and_fewer_blocks_than_its_tokens_fill():
    """a keeps its prompt of 5 in two groups of blocks of 4, and the window of the second lets one go in step 1."""
    steps = (
        hand_written.blocks(0, allocated={"p": (0, 1, 2)}, groups={"p": (0, 0, 1)}, ref_counts={0: 1, 1: 1, 2: 1}),
        hand_written.blocks(1, freed={"p": (2,)}, ref_counts={2: 0}),
        hand_written.blocks(3, freed={"p": (0, 1)}, ref_counts={0: 0, 1: 0}),
    )
    rows = [share("p", "prefill", 5, 0, 5, 0), share("p", "decode", 1, 5, 5, 1), share("p", "decode", 1, 6, 5, 2)]
    done = [{}, {}, {"p": "length"}]
    told = tuple(step(i, [rows[i]], steps[i], {"p": 7}, finished=done[i]) for i in range(3))
    asked = (Request(request_id="p", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4, 5)),)
    assert Trace(PREEMPTED.header, asked, told).validate() == []
    # Cut out of a longer one, it still knows the groups.
    rest = from_step(Trace(PREEMPTED.header, asked, told), 1, state_after(Trace(PREEMPTED.header, asked, told), 1))
    assert rest.validate() == []


@pytest.mark.parametrize(("third", "expected"), [(9, []), (8, ["y hits block 1, which w filled with other tokens"])])
def test_a_block_that_got_its_hash_in_the_last_step_of_its_request_is_remembered(third: int, expected: list[str]):
    header = replace(PREEMPTED.header, capabilities=replace(PREEMPTED.header.capabilities, prefix_caching=True))
    ids = {"w": (9, 9, 9), "y": (9, 9, third, 7, 5)}
    asked = tuple(Request(request_id=r, arrival_s=0.0, prompt_token_ids=prompt) for r, prompt in ids.items())
    given_back = hand_written.blocks(3, freed={"w": (1,)}, cached=(1,), ref_counts={1: 0})
    steps = (
        step(0, [share("w", "prefill", 3, 0, 3, 0)], blocks_of("w", 1), {"w": 7}),
        step(1, [share("w", "decode", 1, 3, 3, 1)], given_back, {"w": 7}, finished={"w": "stop"}),
        step(2, [share("y", "prefill", 1, 4, 5, 0)], blocks_of("y", 1, 0), {"y": 7}, prefix_hits={"y": 4}),
        step(3, [share("y", "decode", 1, 5, 5, 1)], blocks_back("y", 1, 0), {"y": 7}, finished={"y": "stop"}),
    )
    assert [violation.text for violation in Trace(header, asked, steps).validate()] == expected


def blocks_of(request_id: str, *ids: int) -> BlockDelta:
    return hand_written.blocks(3 - len(ids), allocated={request_id: ids}, ref_counts=dict.fromkeys(ids, 1))


def blocks_back(request_id: str, *ids: int) -> BlockDelta:
    return hand_written.blocks(3, freed={request_id: ids}, ref_counts=dict.fromkeys(ids, 0))


def test_block_ids_may_count_from_one():
    trace = blocks(1, allocated={"b": (0, 8)}, ref_counts={0: 2, 8: 1})
    assert with_kv(trace, 2, freed={"a": (0, 1), "b": (0, 8)}, ref_counts={0: 0, 1: 0, 8: 0}).validate() == []


@pytest.mark.parametrize("length", [10**3, 2**53])
def test_a_run_of_hostile_length_is_cut_at_the_end_of_the_cache(length: int):
    runs = {"a": ((0, 0, length),)}
    found = CellState().apply(CellDelta(written=runs, num_used=16, num_cells=16, num_attended=16))
    assert [finding.text for finding in found] == [f"a names cell {length - 1}, the cache has 16"]


def test_a_snapshot_of_blocks_or_cells_rebuilds_the_same_state():
    for trace in (BLOCKS, PREEMPTED, CELLS):
        for number in range(1, len(trace.step_records) + 1):
            snapshot = state_after(trace, number)
            again = CellState() if isinstance(snapshot, CellDelta) else BlockState()
            assert again.apply(snapshot) == []  # type: ignore[arg-type]
            size = snapshot.num_cells if isinstance(snapshot, CellDelta) else snapshot.num_blocks
            assert again.snapshot(size) == snapshot


def test_a_cell_freed_by_one_and_shared_by_another_in_the_same_delta_keeps_its_kv():
    state = CellState()
    state.apply(CellDelta(written={"a": ((0, 0, 2),)}, num_used=2, num_cells=4, num_attended=4))
    both = CellDelta(shared={"b": ((0, 2),)}, freed={"a": ((0, 2),)}, num_used=2, num_cells=4, num_attended=4)
    assert state.apply(both) == []
    assert (state.position, state.holders) == ({0: 0, 1: 1}, {0: {"b"}, 1: {"b"}})
