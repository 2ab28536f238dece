"""The KV cache after a step, as a table: against traces that were written by hand."""

from __future__ import annotations

import pytest
from hand_written import prefix_sharing_in_cells

from llmlab.trace import Header, Trace
from llmlab.trace.example import two_requests


def test_block_tables_tell_positions_fill_and_sharing():
    rows = two_requests().kv(1).to_dict("list")
    assert rows == {
        "request_id": ["a", "a", "b", "b"],
        "logical_block": [0, 1, 0, 1],
        "block_id": [0, 1, 0, 2],
        "first_position": [0, 4, 0, 4],
        "num_tokens": [4, 2, 4, 1],
        "ref_count": [2, 1, 2, 1],
        "cached": [True, False, True, False],
    }


def test_without_a_step_it_is_the_last_one_at_which_most_is_held():
    trace = two_requests()
    assert trace.kv().equals(trace.kv(1))
    assert trace.kv(2).empty


def test_cells_are_told_in_runs():
    trace = prefix_sharing_in_cells()
    for step in trace.step_records:
        table = trace.kv(step.step)
        assert table["num_cells"].sum() == step.kv.num_used
        assert (table["last_cell"] - table["first_cell"] + 1 == table["num_cells"]).all()
        assert (table["last_position"] - table["first_position"] + 1 == table["num_cells"]).all()
    assert trace.kv()["request_ids"].str.contains(", ").any()  # a shared prefix


def test_a_step_that_is_not_there_is_named():
    with pytest.raises(LookupError, match="no step 7; the trace has 0 to 2"):
        two_requests().kv(7)
    with pytest.raises(LookupError, match="no steps"):
        Trace(Header(engine="simulated")).kv()
