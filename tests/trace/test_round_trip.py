"""What is written can be read, all of it, in plain and compressed files."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_strategies import HEADERS, RECORDS

from llmlab.trace import Header, Request, Step, Trace, jsonl
from llmlab.trace.example import two_requests
from llmlab.trace.lines import KINDS, PARTS, decode, encode
from llmlab.trace.records import CellDelta, Record, Token

IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
@given(header=HEADERS, records=st.lists(RECORDS, max_size=4))
@IN_A_FOLDER
def test_any_records_come_back_as_they_were_written(tmp_path: Path, name: str, header: Header, records: list[Record]):
    path = jsonl.write(tmp_path / name, [header, *records])
    assert list(jsonl.read(path)) == [header, *records]


@given(header=HEADERS, records=st.lists(RECORDS, max_size=4))
@IN_A_FOLDER
def test_a_file_that_was_read_is_written_again_byte_for_byte(tmp_path: Path, header: Header, records: list[Record]):
    first = jsonl.write(tmp_path / "first.jsonl", [header, *records])
    again = jsonl.write(tmp_path / "again.jsonl", jsonl.read(first))
    assert again.read_bytes() == first.read_bytes()


@given(record=RECORDS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_line_of_any_json_writer_is_read_the_same(record: Record):
    line = encode(record)
    assert decode(json.dumps(json.loads(line), indent=2).encode()) == decode(line) == record


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_trace_is_saved_and_loaded_by_path_or_string(tmp_path: Path, name: str):
    trace = two_requests()
    assert trace.save(str(tmp_path / name)) == tmp_path / name
    assert Trace.load(tmp_path / name) == Trace.load(str(tmp_path / name)) == trace


def test_the_file_starts_with_its_schema_and_each_request_stands_before_the_steps_that_know_it(tmp_path: Path):
    lines = [json.loads(line) for line in two_requests().save(tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines[0]["schema"] == "llmlab.trace/1"
    assert [next(iter(line)) for line in lines] == ["schema", "request_id", "request_id", "step", "step", "step"]


def test_steps_that_are_out_of_order_stay_so_for_validate_to_see(tmp_path: Path):
    trace = two_requests()
    swapped = Trace(trace.header, trace.request_records, trace.step_records[::-1])
    assert Trace.load(swapped.save(tmp_path / "t.jsonl")).step_records == trace.step_records[::-1]


def test_unknown_fields_are_kept_at_their_own_level_even_one_named_extra():
    line = (
        b'{"step":1,"t_s":0.5,"tokens":[{"request_id":"a","token_id":7,"entropy":1.5}],'
        b'"kv":{"kind":"cells","num_used":0,"num_cells":4,"num_attended":0,"extra":[1]},"joules":3,"extra":{"step":2}}'
    )
    step = decode(line)
    assert isinstance(step, Step)
    assert isinstance(step.kv, CellDelta)
    assert (step.extra, step.kv.extra) == ({"joules": 3, "extra": {"step": 2}}, {"extra": [1]})
    assert step.tokens == (Token(request_id="a", token_id=7, extra={"entropy": 1.5}),)
    assert encode(step) == line


def test_a_higher_minor_of_the_schema_is_read_and_kept():
    line = b'{"schema":"llmlab.trace/1.12","engine":"x","capabilities":{"kv":"cells","tiers":2},"site":"Oslo"}'
    header = decode(line)
    assert isinstance(header, Header)
    assert (header.schema, header.extra, header.capabilities.extra) == (
        "llmlab.trace/1.12",
        {"site": "Oslo"},
        {"tiers": 2},
    )
    assert encode(header) == line


def test_a_user_s_sampling_parameter_named_extra_is_no_unknown_field():
    request = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1,), sampling={"extra": {"a": 1}})
    assert decode(encode(request)) == request


def test_a_gz_file_has_the_same_bytes_whenever_and_wherever_it_is_written(tmp_path: Path):
    first = two_requests().save(tmp_path / "one.jsonl.gz").read_bytes()
    assert two_requests().save(tmp_path / "other.jsonl.gz").read_bytes() == first


def test_every_record_inside_a_record_is_searched_for_unknown_fields():
    def records_in(annotation: object) -> set[type]:
        if isinstance(annotation, type) and issubclass(annotation, Record):
            return {annotation}
        return {kind for part in typing.get_args(annotation) for kind in records_in(part)}

    for kind in {*KINDS.values(), *PARTS}:
        for field in msgspec.structs.fields(kind):
            if inside := records_in(field.type):
                part = PARTS[kind][field.name]
                assert inside == (set(part.values()) if isinstance(part, dict) else {part})
