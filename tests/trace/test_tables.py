"""Traces as DataFrames: units in the names, NA for what was not measured, every column documented."""

from __future__ import annotations

import math
import subprocess
import sys

import pandas as pd
import pytest
from hand_written import died_in_the_middle, from_step, preemption_in_blocks, prefix_sharing_in_cells, state_after
from msgspec.structs import replace

from llmlab.trace import Header, Token, Trace, tables
from llmlab.trace.example import two_requests

TABLES = [
    (tables.steps, tables.STEP_COLUMNS),
    (tables.requests, tables.REQUEST_COLUMNS),
    (tables.tokens, tables.TOKEN_COLUMNS),
]


@pytest.mark.parametrize(("table", "columns"), TABLES)
def test_an_empty_trace_gives_empty_tables_with_all_columns(table, columns):
    frame = table(Trace(Header(engine="simulated")))
    assert len(frame) == 0
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == columns


@pytest.mark.parametrize(("table", "columns"), TABLES)
@pytest.mark.parametrize("trace", [two_requests, prefix_sharing_in_cells, preemption_in_blocks, died_in_the_middle])
def test_every_trace_gives_the_same_columns(table, columns, trace):
    assert {name: str(dtype) for name, dtype in table(trace()).dtypes.items()} == columns


@pytest.mark.parametrize(("table", "columns"), TABLES)
def test_every_column_stands_in_the_docstring(table, columns):
    assert [name for name in columns if name not in table.__doc__] == []


def test_a_row_a_step():
    steps = two_requests().steps
    assert list(steps["batch_size"]) == [1, 2, 2]
    assert list(steps["t_s"]) == [1.0, 2.0, 4.0]
    assert list(steps["forward_s"]) == [0.75, 0.75, 1.75]
    assert list(steps["num_prefill_tokens"]) == [5, 1, 0]
    assert list(steps["num_decode_tokens"]) == [0, 1, 2]
    assert list(steps["num_prefix_hit_tokens"]) == [0, 4, 0]
    assert list(steps["num_output_tokens"]) == [1, 2, 2]
    assert list(steps["num_finished"]) == [0, 0, 2]
    assert list(zip(steps["kv_used"], steps["kv_total"], strict=True)) == [(2, 8), (3, 8), (0, 8)]
    assert steps["num_attended"].isna().all()
    assert list(steps["num_blocks_cached"]) == [1, 0, 0] and list(steps["num_blocks_evicted"]) == [0, 0, 0]
    assert steps["token_budget"].isna().all()


def test_cells_have_their_own_counts():
    steps = prefix_sharing_in_cells().steps
    assert list(steps["kv_used"]) == [5, 7, 9, 8]
    assert list(steps["kv_total"]) == list(steps["num_attended"]) == [16] * 4
    assert steps["num_blocks_cached"].isna().all() and steps["num_blocks_evicted"].isna().all()
    assert steps["forward_s"].isna().all()


def test_a_row_a_request():
    requests = two_requests().requests.set_index("request_id")
    a, b = requests.loc["a"], requests.loc["b"]
    assert (a["num_cached_tokens"], a["queue_s"], a["ttft_s"]) == (0, 0.0, 1.0)
    assert (b["arrival_s"], b["num_prompt_tokens"], b["num_output_tokens"], b["num_cached_tokens"]) == (0.5, 5, 2, 4)
    assert (b["queue_s"], b["ttft_s"], b["tpot_s"], b["e2e_s"], b["finish_reason"]) == (0.5, 1.5, 2.0, 3.5, "length")


def test_preemptions_stand_with_their_request():
    requests = preemption_in_blocks().requests.set_index("request_id")
    assert list(requests["num_preemptions"]) == [0, 1]
    assert list(requests["num_recomputed_tokens"]) == [0, 5]


def test_a_request_that_was_never_served_has_na_not_zero():
    row = died_in_the_middle().requests.set_index("request_id").loc["b"]
    for column in ("num_cached_tokens", "queue_s", "ttft_s", "tpot_s", "e2e_s", "finish_reason"):
        assert pd.isna(row[column]), column
    assert row["num_output_tokens"] == 0


def test_a_row_a_token():
    tokens = two_requests().tokens
    assert list(zip(tokens["request_id"], tokens["index"], tokens["token_id"], tokens["t_s"], strict=True)) == [
        ("a", 0, 6, 1.0),
        ("a", 1, 7, 2.0),
        ("b", 0, 7, 2.0),
        ("a", 2, 8, 4.0),
        ("b", 1, 8, 4.0),
    ]
    assert tokens["logprob"].isna().all()


def test_a_logprob_that_was_asked_for_is_there():
    trace = two_requests()
    token = Token(request_id="a", token_id=6, text="é", logprob=-0.5)
    first = replace(trace.step_records[0], tokens=(token,))
    tokens = Trace(trace.header, trace.request_records, (first,)).tokens
    assert (tokens["text"][0], tokens["logprob"][0]) == ("é", -0.5)
    assert not math.isnan(tokens["logprob"][0])


def test_in_a_trace_cut_out_of_a_longer_one_the_index_goes_on():
    trace = two_requests()
    tokens = from_step(trace, 2, state_after(trace, 2)).tokens
    assert list(zip(tokens["request_id"], tokens["index"], strict=True)) == [("a", 2), ("b", 1)]


def test_pandas_is_loaded_when_a_table_is_asked_for_and_not_before():
    code = (
        "import sys; from llmlab.trace.example import two_requests; import llmlab.metrics; trace = two_requests();"
        "trace.validate(); assert not {'pandas', 'numpy'} & set(sys.modules);"
        "trace.steps; assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
