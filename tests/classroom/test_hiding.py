"""What is left of somebody else's request: recorded traces, looked at as somebody to whom some of it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

import llmlab
from llmlab.classroom.frames import Frame
from llmlab.classroom.hiding import HIDDEN_ID, Aliases, hidden_header, hidden_request, seen_step
from llmlab.trace import BlockDelta, Capabilities, CellDelta, Header, Request, ScheduledRequest, Step, Token, lines
from llmlab.trace.whose import is_other


def everything_hidden() -> Step:
    """A step with something in each field, all of it of one request."""
    return Step(
        step=1, t_s=0.5, schedule_s=0.1, forward_s=0.2, update_s=0.1,
        scheduled=(
            ScheduledRequest(
                request_id="secret", phase="decode", num_tokens=1, num_computed_tokens=3, num_prompt_tokens=2,
                num_output_tokens=1, extra={"secret_of_a_row": 1},
            ),
        ),
        num_scheduled_tokens=1, token_budget=8, waiting=("secret",), num_waiting=1, num_running=1,
        preempted=("secret",),
        finished={"secret": "stop"}, stopped_by={"secret": "secret stop"}, prefix_hits={"secret": 2},
        forked={"secret": "secret"},
        tokens=(Token(request_id="secret", token_id=77, text="secret", logprob=-1.0, top=((78, -1.0, "secret"),)),),
        kv=BlockDelta(
            allocated={"secret": (1,)}, freed={"secret": (2,)}, cached=(1,), evicted=(2,), ref_counts={1: 1},
            copied={1: 2}, free_head=(3,), groups={"secret": (0,)}, num_free=3, num_blocks=4, extra={"hash": "secret"},
        ),
        extra={"note": "secret"},
    )  # fmt: skip


def test_nothing_of_a_step_names_a_request_or_tells_what_it_says():
    seen = lines.encode(seen_step(everything_hidden(), frozenset(), Aliases()))
    assert b"secret" not in seen and b"hash" not in seen and b"77" not in seen and b"78" not in seen
    told = json.loads(seen)
    assert told["scheduled"][0]["num_computed_tokens"] == 3 and told["kv"]["allocated"] == {"*0": [1]}
    assert told["tokens"] == [{"request_id": "*0", "token_id": HIDDEN_ID}]


def test_of_a_request_only_when_it_came_and_how_long_it_is():
    request = Request(
        request_id="secret", arrival_s=1.5, prompt_token_ids=(5, 6, 7), prompt_text="secret", priority=3, user="secret",
        sampling={"max_tokens": 9, "stop": ["secret"], "json_schema": {}}, salt="secret", parent_id="secret",
        extra={"reported": "secret"},
    )  # fmt: skip
    hidden = hidden_request(request, "*4")
    assert hidden.prompt_token_ids == (HIDDEN_ID,) * 3 and is_other(hidden)
    assert json.loads(lines.encode(hidden)) == {
        "request_id": "*4", "arrival_s": 1.5, "prompt_token_ids": [HIDDEN_ID] * 3, "sampling": {"max_tokens": 9},
        "whose": "other",
    }  # fmt: skip


def test_every_field_of_a_record_is_let_through_or_hidden_on_purpose():
    """A new field of a trace is hidden until somebody decides."""
    decided = {
        Step: "step t_s schedule_s forward_s update_s scheduled num_scheduled_tokens token_budget waiting num_waiting "
        "num_running preempted finished stopped_by prefix_hits forked tokens kv",
        Request: "request_id arrival_s prompt_token_ids prompt_text sampling priority user salt parent_id",
        ScheduledRequest: "request_id phase num_tokens num_computed_tokens num_prompt_tokens num_output_tokens "
        "num_draft_tokens",
        Token: "request_id token_id text logprob top",
        BlockDelta: "allocated freed cached evicted ref_counts copied free_head groups num_free num_blocks",
        CellDelta: "written shared freed num_used num_cells num_attended head",
        Header: "schema engine engine_version model fingerprint quant dtype device num_threads source capabilities "
        "block_size num_blocks num_cells kv_cache_bytes max_model_len max_num_seqs token_budget started_at kv_at_start",
    }
    for kind, fields in decided.items():
        assert set(kind.__struct_fields__) - {"extra"} == set(fields.split()), kind


def test_the_kv_cache_in_the_header_names_nobody():
    kv = CellDelta(
        written={"secret": ((0, 0, 4),)}, shared={"secret": ((9, 1),)}, num_used=5, num_cells=16, num_attended=16
    )
    header = Header(engine="fake", capabilities=Capabilities(kv="cells"), kv_at_start=kv, extra={"note": "secret"})
    hidden = hidden_header(header, Aliases())
    assert b"secret" not in lines.encode(hidden)
    assert hidden.kv_at_start == msgspec.structs.replace(kv, written={"*0": ((0, 0, 4),)}, shared={"*0": ((9, 1),)})


def recorded_steps() -> Iterator[tuple[str, list[Step], list[str]]]:
    for name in ("preemption", "burst_of_64"):
        trace = llmlab.recorded(name)
        yield name, list(trace.step_records)[:120], [request.request_id for request in trace.request_records]
    yield "everything", [everything_hidden()], ["secret"]


@pytest.mark.parametrize(
    ("name", "steps", "ids"), list(recorded_steps()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_made_once_for_all_is_what_hiding_makes_for_each(name: str, steps: list[Step], ids: list[str]):
    user_of = {request_id: f"student{number % 3}" for number, request_id in enumerate(ids)}
    alias = Aliases()
    for step in steps:
        frame = Frame(step, user_of, alias)
        for student in ("student0", "student1", "nobody"):
            own = frozenset(request_id for request_id, user in user_of.items() if user == student)
            expected = seen_step(step, own, frame.name_for(own))
            assert lines.decode(frame.seen_by(student)[:-1]) == expected
            assert frame.seen_by(student) == lines.encode(expected) + b"\n"


def test_a_trace_stays_sound_under_aliases():
    trace, alias = llmlab.recorded("preemption"), Aliases()
    assert trace.validate() == []
    user_of = {r.request_id: f"student{number % 2}" for number, r in enumerate(trace.request_records)}
    frames = [Frame(step, user_of, alias) for step in trace.step_records]
    own = frozenset(request_id for request_id, user in user_of.items() if user == "student0")
    name = frames[0].name_for(own)
    requests = [r if r.request_id in own else hidden_request(r, name(r.request_id)) for r in trace.request_records]
    steps = [lines.decode(frame.seen_by("student0")[:-1]) for frame in frames]
    seen = llmlab.Trace.of([hidden_header(trace.header, name), *requests, *steps, *trace.incidents])
    # whether a prefix was found by right is seen in its tokens, and these are hidden
    assert {violation.rule for violation in seen.validate()} <= {"prefix"}
    assert seen.requests.num_output_tokens.tolist() == trace.requests.num_output_tokens.tolist()
