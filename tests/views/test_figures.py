"""The panel's figures: numbers by hand, and the running counters against the slow way over the whole state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hand_written
import pytest
from hand_written import share
from hand_written import step as step_of
from scheduled_traces import random_trace

from llmlab.trace import BlockDelta, Capabilities, CellDelta, Header, KvDelta, Request, Step, Trace
from llmlab.trace.example import two_requests
from llmlab.trace.kv_state import BlockState, CellState, state_for
from llmlab.views.figures import figures_for
from llmlab.views.story import Story

TRACES = Path(__file__).resolve().parents[2] / "datasets" / "traces"
BLOCK_NAMES = ("held", "shared", "cached", "free", "tokens", "waste", "saved", "reserved", "total_slots")
CELL_NAMES = ("used", "holes", "padding", "unread", "read", "masked", "shared", "saved", "tokens")


def figures_of(trace: Trace) -> list[dict[str, Any]]:
    return [record["fig"] for record in Story.of(trace).steps]


def in_order(figures: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(figures[name] for name in names)


# ---- by hand


def test_blocks_that_two_requests_share_count_once():
    first, second, last = figures_of(two_requests())
    # 8 blocks of 4. a has 5 tokens in blocks 0 and 1; then 6, and b 5 in blocks 0 and 2: 4 + 2 + 1 slots are written.
    assert in_order(first, BLOCK_NAMES) == (2, 0, 0, 6, 5, 0.375, 0, 16, 32)
    assert in_order(second, BLOCK_NAMES) == (3, 1, 0, 5, 7, 0.4167, 1, 32, 32)
    # Block 0 keeps its hash when both have ended. With nothing held there is no share that could be wasted.
    assert in_order(last, BLOCK_NAMES) == (0, 0, 1, 7, 0, None, 0, 0, 32)
    assert [(f["running"], f["hits"]) for f in (first, second, last)] == [(1, 0), (2, 4), (0, 4)]


def test_cells_that_are_empty_before_the_last_used_one_are_holes_and_those_up_to_the_attended_span_padding():
    header = Header(engine="llamacpp", capabilities=Capabilities(kv="cells"), num_cells=16)
    figures = figures_for(header)
    attended = {"num_cells": 16, "num_attended": 8}
    written = CellDelta(written={"a": ((0, 0, 3),), "b": ((3, 0, 2),)}, shared={"b": ((0, 1),)}, num_used=5, **attended)
    first = figures.after(step_of(0, [share("a", "prefill", 3, 0, 3, 0)], written, {}))
    # cells 0 to 4 are used, cell 0 twice; attention reads 8 of 16 cells, 3 of them in vain
    assert in_order(first, CELL_NAMES) == (5, 0, 3, 8, 8, 3, 1, 1, 5)
    freed = CellDelta(freed={"a": ((0, 3),)}, num_used=3, **attended)
    second = figures.after(step_of(1, [], freed, {}, finished={"a": "stop"}))
    # b still holds cell 0; 1 and 2 are holes
    assert in_order(second, CELL_NAMES) == (3, 2, 3, 8, 8, 5, 0, 0, 3)
    assert figures.emptied == {"a": 2}
    assert second["hits"] is None  # no prefix cache in this engine


def test_cells_of_the_end_that_are_freed_are_no_holes():
    figures = figures_for(Header(engine="llamacpp", capabilities=Capabilities(kv="cells"), num_cells=16))
    figures.after(step_of(0, [], CellDelta(written={"a": ((0, 0, 6),)}, num_used=6, num_cells=16, num_attended=8), {}))
    freed = CellDelta(freed={"a": ((4, 2),)}, num_used=4, num_cells=16, num_attended=8)
    assert in_order(figures.after(step_of(1, [], freed, {})), CELL_NAMES) == (4, 0, 4, 8, 8, 4, 0, 0, 4)


def test_a_cell_that_one_request_frees_and_another_shares_in_the_same_step_keeps_its_kv():
    figures = figures_for(Header(engine="llamacpp", capabilities=Capabilities(kv="cells"), num_cells=16))
    figures.after(step_of(0, [], CellDelta(written={"a": ((0, 0, 2),)}, num_used=2, num_cells=16, num_attended=8), {}))
    delta = CellDelta(freed={"a": ((0, 2),)}, shared={"b": ((0, 1),)}, num_used=1, num_cells=16, num_attended=8)
    assert figures.after(step_of(1, [], delta, {}))["used"] == 1
    assert figures.emptied == {"a": 1}
    assert (figures.held_by("a"), figures.held_by("b")) == (0, 1)
    figures.after(step_of(2, [], None, {}))
    assert figures.emptied == {}


def test_a_request_counts_what_it_had_before_it_was_preempted_until_the_step_is_added():
    trace = hand_written.preemption_in_blocks()
    figures = figures_for(trace.header)
    figures.after(trace.step_records[0])
    assert (figures.held_by("q"), figures.tokens_of("q")) == (1, 4)
    figures.after(trace.step_records[1])
    assert (figures.held_by("q"), figures.tokens_of("q")) == (0, 0)


def test_rejected_drafts_are_no_tokens():
    trace = hand_written.drafts_accepted_and_rejected()
    figures = figures_for(trace.header)
    computed = []
    for step in trace.step_records[:3]:
        figures.after(step)
        computed.append(figures.tokens_of("a"))
    assert computed == [3, 5, 6]


def test_tokens_of_a_finished_request_count_as_long_as_it_holds_their_blocks():
    """vLLM may learn the end of a request one step before its blocks are free."""
    figures = figures_for(two_requests().header)
    held = BlockDelta(allocated={"a": (0, 1)}, ref_counts={0: 1, 1: 1}, num_free=6, num_blocks=8)
    figures.after(step_of(0, [share("a", "prefill", 5, 0, 5, 0)], held, {}))
    ended = figures.after(step_of(1, [], BlockDelta(num_free=6, num_blocks=8), {}, finished={"a": "stop"}))
    assert (ended["running"], ended["held"], ended["tokens"]) == (0, 2, 5)
    freed = BlockDelta(freed={"a": (1, 0)}, ref_counts={0: 0, 1: 0}, num_free=8, num_blocks=8)
    assert figures.after(step_of(2, [], freed, {}))["tokens"] == 0
    assert figures.tokens_of("a") == 0


def test_a_block_that_loses_its_hash_while_it_is_held_is_not_cached_when_it_is_freed():
    """No engine does so, a lab may."""
    figures = figures_for(two_requests().header)
    held = BlockDelta(allocated={"a": (0,)}, cached=(0,), ref_counts={0: 1}, num_free=7, num_blocks=8)
    figures.after(step_of(0, [share("a", "prefill", 4, 0, 5, 0)], held, {}))
    lost = figures.after(step_of(1, [], BlockDelta(evicted=(0,), num_free=7, num_blocks=8), {}))
    assert (lost["held"], lost["cached"], lost["free"]) == (1, 0, 7)


def test_what_is_reserved_follows_when_one_request_takes_the_place_of_another():
    figures = figures_for(two_requests().header)
    figures.add_request("a", 7)
    figures.add_request("b", 12)
    delta = BlockDelta(num_free=8, num_blocks=8)
    assert figures.after(step_of(0, [share("a", "prefill", 5, 0, 5, 0)], delta, {}))["reserved"] == 7
    b_comes = step_of(1, [share("b", "prefill", 5, 0, 5, 0)], delta, {}, finished={"a": "stop"})
    assert figures.after(b_comes)["reserved"] == 12


# ---- a block that is shared before it is full: no vLLM does that, a lab may


def a_fork() -> Trace:
    """a and b share block 1 while it holds one token of each; then a alone writes on and fills it, then b ends."""
    header = Header(engine="simulated", capabilities=Capabilities(kv="blocks", block_table=True), block_size=4)

    def blocks(num_free: int, **changes: Any) -> BlockDelta:
        return BlockDelta(num_free=num_free, num_blocks=8, **changes)

    steps = (
        step_of(
            0, [share("a", "prefill", 5, 0, 5, 0)], blocks(6, allocated={"a": (0, 1)}, ref_counts={0: 1, 1: 1}), {}
        ),
        step_of(
            1, [share("b", "prefill", 1, 4, 5, 0)], blocks(6, allocated={"b": (0, 1)}, ref_counts={0: 2, 1: 2}), {}
        ),
        step_of(2, [share("a", "decode", 1, 5, 5, 1)], blocks(6), {}),
        step_of(3, [share("a", "decode", 2, 6, 5, 2)], blocks(6), {}),
        step_of(4, [], blocks(6, freed={"b": (1, 0)}, ref_counts={0: 1, 1: 1}), {}, finished={"b": "stop"}),
    )
    return Trace(header, (), steps)


def test_a_shared_block_holds_what_the_request_that_wrote_most_has_written():
    figures = figures_of(a_fork())
    assert [f["tokens"] for f in figures] == [5, 5, 6, 8, 8]
    assert [f["waste"] for f in figures] == [0.375, 0.375, 0.25, 0.0, 0.0]
    assert [f["saved"] for f in figures] == [0, 2, 2, 2, 0]


# ---- what is not known


def test_a_step_that_says_nothing_of_the_kv_cache_has_no_figures_of_it():
    figures = figures_for(two_requests().header).after(Step(step=0, t_s=1.0))
    assert figures == dict.fromkeys(BLOCK_NAMES) | {"running": 0, "hits": 0}


def test_an_engine_without_kv_to_show_has_only_figures_of_its_requests():
    assert figures_of(hand_written.drafts_accepted_and_rejected())[0] == {"running": 1, "hits": None}


def test_reserved_is_unknown_when_a_running_request_may_become_any_length():
    header = Header(engine="simulated", capabilities=Capabilities(kv="blocks"), block_size=4)
    request = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4, 5))
    told = Request(request_id="b", arrival_s=0.0, prompt_token_ids=(1,), sampling={"max_tokens": 9})
    steps = a_fork().step_records[:2]
    assert [f["reserved"] for f in figures_of(Trace(header, (request, told), steps))] == [None, None]
    told_too = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2), sampling={"max_tokens": 4})
    assert [f["reserved"] for f in figures_of(Trace(header, (told_too, told), steps))] == [6, 16]


def test_a_request_whose_record_comes_late_is_reserved_from_then_on():
    story = Story(Header(engine="simulated", capabilities=Capabilities(kv="blocks"), block_size=4))
    steps = a_fork().step_records
    assert story.add_step(steps[0])["fig"]["reserved"] is None
    told = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2), sampling={"max_tokens": 4})
    story.add_request(told)
    assert story.add_step(steps[2])["fig"]["reserved"] == 6


def test_written_slots_are_unknown_where_layers_keep_their_kv_in_different_ways():
    trace = a_fork()
    delta = BlockDelta(allocated={"a": (0, 1)}, groups={"a": (0, 1)}, num_free=6, num_blocks=8)
    (figures,) = figures_of(Trace(trace.header, (), (step_of(0, [share("a", "prefill", 4, 0, 4, 0)], delta, {}),)))
    assert (figures["held"], figures["tokens"], figures["waste"]) == (2, None, None)


def test_written_slots_of_a_trace_that_was_cut_out_are_unknown_until_each_holder_was_scheduled():
    trace = a_fork()
    rest = hand_written.from_step(trace, 2, hand_written.state_after(trace, 2))
    figures = figures_of(rest)
    assert [f["held"] for f in figures] == [2, 2, 2]
    # b is not scheduled any more, and gone in the third step
    assert [f["tokens"] for f in figures] == [None, None, 8]


def test_a_trace_that_was_cut_out_goes_on_with_the_figures_of_the_whole():
    trace = hand_written.preemption_in_blocks()
    rest = hand_written.from_step(trace, 1, hand_written.state_after(trace, 1))
    assert figures_of(rest) == figures_of(trace)[1:]


def test_more_tokens_than_slots_make_no_negative_waste():
    trace = a_fork()
    delta = BlockDelta(allocated={"a": (0,)}, ref_counts={0: 1}, num_free=7, num_blocks=8)
    (figures,) = figures_of(Trace(trace.header, (), (step_of(0, [share("a", "prefill", 9, 0, 9, 0)], delta, {}),)))
    assert (figures["tokens"], figures["waste"]) == (4, 0.0)


# ---- the slow way


def recorded() -> Iterator[Any]:
    for path in sorted(TRACES.glob("*.jsonl.gz")):
        yield pytest.param(lambda path=path: Trace.load(path), id=path.name.split(".")[0])
    for make in (
        two_requests,
        a_fork,
        hand_written.prefix_sharing_in_cells,
        hand_written.preemption_in_blocks,
        hand_written.died_in_the_middle,
    ):
        yield pytest.param(make, id=make.__name__)


@pytest.mark.parametrize("make", list(recorded()))
def test_running_counters_agree_with_a_look_at_the_whole_state_after_each_step(make):
    trace = make()
    assert trace.step_records
    for step, figures, expected in zip(trace.step_records, figures_of(trace), slowly(trace), strict=True):
        assert figures == expected, f"step {step.step}"


@pytest.mark.parametrize("kind", ["blocks", "cells"])
def test_running_counters_agree_on_random_runs_with_preemptions_and_aborts(kind):
    for seed in range(20):
        trace = random_trace(seed, kind)
        assert figures_of(trace) == list(slowly(trace)), f"seed {seed}"


def slowly(trace: Trace) -> Iterator[dict[str, Any]]:
    """The figures of each step, from all that is held then."""
    state: BlockState | CellState | None = None
    tokens: dict[str, int] = {}
    running: set[str] = set()
    num_hit = 0
    most = {record["id"]: record["most"] for record in Story.of(trace).requests}
    for step in trace.step_records:
        running -= set(step.preempted)
        for row in step.scheduled:
            tokens[row.request_id] = row.num_computed_tokens + row.num_tokens
            running.add(row.request_id)
        running -= set(step.finished)
        num_hit += sum(step.prefix_hits.values())
        assert step.kv is not None
        state = state or state_for(step.kv)
        assert state.apply(step.kv) == []  # type: ignore[arg-type]
        slow = _cells(state, step.kv) if isinstance(state, CellState) else _blocks(state, step.kv, trace, tokens)
        if isinstance(state, BlockState):
            slots = [most[r] for r in running]
            slow["reserved"] = None if None in slots else sum(slots)
        has_cache = trace.header.capabilities.prefix_caching
        yield slow | {"running": len(running), "hits": num_hit if has_cache else None}


def _blocks(state: BlockState, kv: KvDelta, trace: Trace, tokens: dict[str, int]) -> dict[str, Any]:
    assert isinstance(kv, BlockDelta)
    size = trace.header.block_size
    assert size
    fills: dict[int, int] = {}
    for request_id, table in state.tables.items():
        for i, block in enumerate(table):
            fills[block] = max(fills.get(block, 0), min(size, max(0, tokens[request_id] - i * size)))
    num_tables = Counter(block for table in state.tables.values() for block in table)
    assert num_tables == state.ref_counts
    written, cached = sum(fills.values()), len(state.cached - set(num_tables))
    return {
        "held": len(num_tables),
        "shared": sum(n > 1 for n in num_tables.values()),
        "cached": cached,
        "free": kv.num_free - cached,
        "tokens": written,
        "waste": round(1 - written / (len(num_tables) * size), 4) if num_tables else None,
        "saved": sum(n - 1 for n in num_tables.values()),
        "total_slots": kv.num_blocks * size,
    }


def _cells(state: CellState, kv: KvDelta) -> dict[str, Any]:
    assert isinstance(kv, CellDelta)
    last = max(state.position, default=-1)
    cells = range(kv.num_cells)
    return {
        "used": kv.num_used,
        "holes": sum(cell not in state.position for cell in cells[: last + 1]),
        "padding": sum(cell > last for cell in cells[: kv.num_attended]),
        "unread": sum(cell >= kv.num_attended for cell in cells),
        "read": kv.num_attended,
        "masked": sum(cell not in state.position for cell in cells[: kv.num_attended]),
        "shared": sum(len(who) > 1 for who in state.holders.values()),
        "saved": sum(len(who) - 1 for who in state.holders.values()),
        "tokens": len(state.position),
    }
