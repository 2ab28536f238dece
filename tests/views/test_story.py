"""The records that a picture gets: small, plain, and enough to rebuild who holds what after each step."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import hand_written
import msgspec
import pandas as pd
import pytest
from hand_written import share
from hand_written import step as step_of
from msgspec.structs import replace
from scheduled_traces import random_trace

from llmlab.trace import BlockDelta, Capabilities, Header, Request, Token, Trace
from llmlab.trace.example import two_requests
from llmlab.trace.kv_tables import BLOCK_COLUMNS, CELL_COLUMNS
from llmlab.views.kv_now import BlocksNow, CellsNow, Memory, empty_kv
from llmlab.views.story import Story, short_name

TRACES = Path(__file__).resolve().parents[2] / "datasets" / "traces"


def recorded() -> Iterator[Any]:
    for path in sorted(TRACES.glob("*.jsonl.gz")):
        yield pytest.param(lambda path=path: Trace.load(path), id=path.name.split(".")[0])
    for kind in ("blocks", "cells"):
        yield from (pytest.param(lambda k=kind, s=seed: random_trace(s, k), id=f"{kind}_{seed}") for seed in (1, 2, 3))
    for make in (two_requests, hand_written.prefix_sharing_in_cells, hand_written.preemption_in_blocks):
        yield pytest.param(make, id=make.__name__)


@pytest.mark.parametrize("make", list(recorded()))
def test_what_the_records_rebuild_is_what_the_trace_says(make):
    trace = make()
    story = Story.of(trace)
    chosen = set(random.Random(7).sample(range(len(story.steps)), min(50, len(story.steps))))
    state = empty_kv(story.head)
    for i, record in enumerate(story.steps):
        state.step(record)
        if i in chosen:
            pd.testing.assert_frame_equal(_table(state, story), trace.kv(record["n"]), check_dtype=False)


def _ids(story: Story, indexes: Iterable[int]) -> list[str]:
    return [story.requests[index]["id"] for index in indexes]


def _table(state: Memory, story: Story) -> pd.DataFrame:
    """The state that the records tell as trace.kv() tells it."""
    if isinstance(state, CellsNow):
        rows = [
            (
                cell,
                cell + n - 1,
                n,
                first,
                first + n - 1,
                ", ".join(sorted(_ids(story, who), key=lambda r: (len(r), r))),
            )
            for cell, first, n, who in state.runs()
        ]
        return pd.DataFrame(rows, columns=CELL_COLUMNS)
    assert isinstance(state, BlocksNow)
    size = story.head["block_size"]
    rows = []
    for request, table in state.tables.items():
        for i, block in enumerate(table):
            num_tokens = max(0, min(size, state.tokens.get(request, 0) - i * size))
            num_holders = sum(block in other for other in state.tables.values())
            name = story.requests[request]["id"]
            rows.append((name, i, block, i * size, num_tokens, num_holders, block in state.cached))
    return pd.DataFrame(rows, columns=BLOCK_COLUMNS)


@pytest.mark.parametrize("make", list(recorded()))
def test_a_story_is_plain_json(make):
    story = Story.of(make())
    told = {"head": story.head, "requests": story.requests, "steps": story.steps}
    assert json.loads(json.dumps(told)) == _with_lists(told)


def _with_lists(told: Any) -> Any:
    """As JSON has it: blocks are told by the tuples of the trace."""
    if isinstance(told, dict):
        return {key: _with_lists(value) for key, value in told.items()}
    return [_with_lists(one) for one in told] if isinstance(told, list | tuple) else told


def told_forgetting(forget: Callable[[Story], None], trace: Trace) -> Story:
    """The story of a trace in which each step is told without something that is remembered of the one before."""
    story = Story(trace.header)
    for request in trace.request_records:
        story.add_request(request)
    for step in trace.step_records:
        forget(story)
        story.add_step(step)
    story.tell_end(trace.incidents)
    return story


def forget_sentence(story: Story) -> None:
    story._said_of = ()


def forget_order(story: Story) -> None:
    story._shares._ids, story._shares._indexes, story._shares._num_tokens = ["nobody"], [], []


@pytest.mark.parametrize("make", list(recorded()))
def test_a_sentence_that_holds_again_is_the_one_that_the_step_would_get_alone(make):
    story, apart = Story.of(make()), told_forgetting(forget_sentence, make())
    assert [record["say"] for record in story.steps] == [record["say"] for record in apart.steps]


@pytest.mark.parametrize("make", list(recorded()))
def test_who_goes_on_is_the_same_whether_or_not_the_step_before_tells_it(make):
    story, apart = Story.of(make()), told_forgetting(forget_order, make())
    assert [(record["d"], record["r"]) for record in story.steps] == [(s["d"], s["r"]) for s in apart.steps]


@pytest.mark.parametrize("make", list(recorded()))
def test_the_cache_as_a_story_tells_it_is_the_one_that_its_records_rebuild(make):
    trace = make()
    story = Story(trace.header)
    for request in trace.request_records:
        story.add_request(request)
    rebuilt, num_told = empty_kv(story.head), 0
    for number, step in enumerate(trace.step_records):
        rebuilt.step(story.add_step(step))
        if number % 7 == 0 and (start := json.loads(msgspec.json.encode(story.start()))) is not None:
            num_told += 1
            told = empty_kv({**story.head, "start": start})
            assert isinstance(told, BlocksNow) and isinstance(rebuilt, BlocksNow)
            assert (told.tables, told.cached, told.tokens) == (rebuilt.tables, rebuilt.cached, rebuilt.tokens)
            assert list(told.next_out) == list(rebuilt.next_out)
    assert num_told or story.head["kind"] != "blocks" or rebuilt.groups  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", list(recorded()))
def test_rows_and_tokens_are_those_of_the_trace(make):
    trace = make()
    story = Story.of(trace)
    ids = [request["id"] for request in story.requests]
    state = empty_kv(story.head)
    for step, record in zip(trace.step_records, story.steps, strict=True):
        state.step(record)
        phases = ("prefill", "decode", "recompute")
        told = {(ids[r], phases[phase], n, computed) for r, phase, n, computed in state.rows}
        rows = {(row.request_id, row.phase, row.num_tokens, row.num_computed_tokens) for row in step.scheduled}
        assert told == rows
        assert sum(record["u"]) == step.num_scheduled_tokens
        # of each request in order; who goes on decoding is told by the order of `d`
        texts = [*zip(ranges(record["d"]), record.get("dx", ()), strict=False), *pairs(record.get("x", []))]
        by_request = [(token.request_id, token.text) for token in step.tokens]
        assert sorted(((ids[r], text) for r, text in texts), key=itemgetter(0)) == sorted(by_request, key=itemgetter(0))
        assert len(record.get("dx", ())) in (0, len(list(ranges(record["d"]))))


def ranges(told: list[int]) -> Iterator[int]:
    for start, number in pairs(told):
        yield from range(start, start + number)


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def test_a_record_of_a_decode_step_of_256_requests_is_below_8_kb():
    header = Header(
        engine="vllm",
        capabilities=Capabilities(kv="blocks", block_table=True, prefix_caching=True),
        block_size=16,
        num_blocks=34909,
        max_model_len=4096,
        token_budget=8192,
    )
    names = [f"cmpl-{r:032x}" for r in range(256)]
    story = Story(header)
    for name in names:
        story.add_request(Request(request_id=name, arrival_s=0.0, prompt_token_ids=(1,) * 500))
    for number, computed in enumerate((500, 501, 512)):
        kv = BlockDelta(
            allocated={name: (30000 + r,) for r, name in enumerate(names) if r % 16 == 0 or computed == 512},
            free_head=tuple(range(20000, 20016)),
            num_free=20000,
            num_blocks=34909,
        )
        rows = [share(name, "decode", 1, computed, 500, computed - 499) for name in names]
        step = step_of(number, rows, kv, {})
        tokens = tuple(Token(request_id=name, token_id=9, text=" example") for name in names)
        story.add_step(replace(step, tokens=tokens))
    assert story.steps[1]["d"] == [0, 256]
    assert story.steps[1]["r"] == []
    assert len(json.dumps(story.steps[1], separators=(",", ":"))) < 8000


# ---- who goes on decoding


def test_requests_that_go_on_decoding_are_told_as_ranges_and_others_in_full():
    rows = [record["d"] for record in Story.of(two_requests()).steps]
    assert rows == [[], [0, 1], [0, 2]]
    assert Story.of(two_requests()).steps[1]["r"] == [[1, 0, 1, 4]]


def test_the_order_in_which_they_are_scheduled_does_not_break_ranges():
    story = Story(two_requests().header)
    for step in two_requests().step_records[:2]:
        story.add_step(step)
    record = story.add_step(step_of(2, [share("b", "decode", 1, 5, 5, 1), share("a", "decode", 1, 6, 5, 2)], None, {}))
    assert record["d"] == [0, 2]


def test_after_drafts_a_share_is_told_in_full_as_some_may_have_been_rejected():
    steps = Story.of(hand_written.drafts_accepted_and_rejected()).steps
    assert [record["d"] for record in steps] == [[], [], [], []]
    assert [record["r"] for record in steps] == [[[0, 0, 3, 0]], [[0, 1, 3, 3]], [[0, 1, 3, 5]], [[0, 1, 1, 6]]]


def test_a_request_that_returns_is_told_in_full():
    steps = Story.of(hand_written.preemption_in_blocks()).steps
    assert [(record["d"], record["r"]) for record in steps[1:4]] == [([0, 1], []), ([0, 1], []), ([], [[1, 2, 5, 0]])]


# ---- events


def test_a_preempted_request_is_told_with_its_blocks_and_tokens_before_the_step():
    steps = Story.of(hand_written.preemption_in_blocks()).steps
    assert [record["pre"] for record in steps] == [[], [[1, 1, 4]], [], [], []]
    assert [record["fin"] for record in steps] == [[], [], [[0, "length", 3]], [], [[1, "stop", 3]]]


def test_a_request_that_is_preempted_and_back_in_the_same_step_is_told_with_what_it_lost():
    trace = hand_written.preemption_in_blocks()
    kv = BlockDelta(freed={"q": (1,)}, allocated={"q": (2,)}, ref_counts={1: 0, 2: 1}, num_free=1, num_blocks=3)
    back = step_of(1, [share("q", "recompute", 3, 0, 4, 1)], kv, {}, preempted=("q",))
    story = Story.of(Trace(trace.header, trace.request_records, (trace.step_records[0], back)))
    assert story.steps[1]["pre"] == [[1, 1, 4]]
    assert story.steps[1]["r"] == [[1, 2, 3, 0]]
    assert story.steps[1]["fig"]["tokens"] == 7
    # from then on it has 3 tokens, not the 4 of before
    assert story.add_step(step_of(2, [share("q", "decode", 1, 3, 4, 1)], None, {}))["d"] == [1, 1]


def test_hits_are_told_by_index():
    assert [record["hit"] for record in Story.of(two_requests()).steps] == [[], [[1, 4]], []]


# ---- requests that the trace does not introduce


def test_requests_without_a_record_are_known_by_what_happens_to_them():
    """A trace that was cut out may begin with the end, the preemption or a token of one."""
    step = step_of(0, [share("a", "decode", 1, 9, 4, 6)], None, {"a": 1, "late": 2})
    step = replace(step, preempted=("b",), finished={"c": "stop", "a": "length"}, prefix_hits={"d": 16})
    story = Story(Header(engine="simulated"))
    record = story.add_step(step)
    ids = [request["id"] for request in story.requests]
    assert sorted(ids) == ["a", "b", "c", "d", "late"]
    assert [request["prompt"] for request in story.requests] == [None] * 5
    assert record["pre"] == [[ids.index("b"), 0, 0]]
    # a had 6 tokens before this step, which the trace does not tell one by one
    assert record["fin"] == [[ids.index("c"), "stop", 0], [ids.index("a"), "length", 7]]
    assert record["hit"] == [[ids.index("d"), 16]]


def test_a_record_that_comes_late_fills_in_what_was_unknown_and_keeps_the_place():
    story = Story(Header(engine="simulated"))
    for name in ("cmpl-0001", "cmpl-0002"):
        story.add_step(step_of(0, [share(name, "prefill", 3, 0, 3, 0)], None, {}))
    told = Request(request_id="cmpl-0001", arrival_s=0.5, prompt_token_ids=(1, 2, 3), sampling={"max_tokens": 4})
    story.add_request(told)
    assert [(r["name"], r["prompt"], r["most"]) for r in story.requests] == [("r0", 3, 7), ("r1", None, None)]


def test_holders_at_the_start_of_a_trace_that_was_cut_out_are_told_in_the_head():
    trace = hand_written.preemption_in_blocks()
    story = Story.of(hand_written.from_step(trace, 1, hand_written.state_after(trace, 1)))
    assert story.head["start"]["a"] == [(0, (0,)), (1, (1,))]
    assert [request["id"] for request in story.requests] == ["p", "q"]
    assert story.steps[0]["pre"] == [[1, 1, 0]]  # what q had computed, nobody told


def test_those_who_wait_without_a_record_are_only_counted():
    step = replace(step_of(0, [], None, {}), waiting=("a", "nobody"), num_waiting=70)
    story = Story(Header(engine="simulated"))
    story.add_request(Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1,)))
    record = story.add_step(step)
    assert (record["w"], record["nw"]) == ([0], 70)


# ---- names and limits


def test_texts_are_told_until_they_would_be_too_many(monkeypatch):
    monkeypatch.setattr("llmlab.views.story.MAX_TEXT_BYTES", 5)
    story = Story(Header(engine="simulated"))
    for number, text in enumerate(("four", "more", "lost")):
        step = step_of(number, [share("a", "decode", 1, 5 + number, 4, 2 + number)], None, {})
        story.add_step(replace(step, tokens=(Token(request_id="a", token_id=1, text=text),)))
    assert [(record.get("x"), record.get("dx")) for record in story.steps] == [
        ([0, "four"], None),
        (None, ["more"]),
        (None, None),
    ]


def test_short_ids_are_names_and_long_ones_get_a_number():
    assert (short_name("r7", 3), short_name("cmpl-4f1c2d9e8a7b", 3)) == ("r7", "r3")


@pytest.mark.parametrize(
    ("max_tokens", "max_model_len", "most"),
    [(4, None, 7), (4, 16, 7), (40, 16, 16), (None, 16, 16), (None, None, None)],
)
def test_a_request_becomes_at_most_prompt_and_max_tokens_or_the_longest_sequence(max_tokens, max_model_len, most):
    story = Story(Header(engine="simulated", max_model_len=max_model_len))
    sampling = {} if max_tokens is None else {"max_tokens": max_tokens}
    story.add_request(Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3), sampling=sampling))
    assert story.requests[0]["most"] == most


def test_a_time_that_was_not_measured_is_none():
    assert Story.of(hand_written.preemption_in_blocks()).steps[0]["ms"] is None
    assert Story.of(two_requests()).steps[0]["ms"] == [125.0, 750.0, 125.0]
