"""The export for Perfetto and chrome://tracing: what stands on which track, and the rules of the format."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import hand_written
import pytest
from hand_written import share, step, with_header, with_request, with_step
from msgspec.structs import replace
from scheduled_traces import random_trace

from llmlab.errors import TraceError
from llmlab.trace import Header, Request, Token, Trace, perfetto
from llmlab.trace.example import two_requests

Event = dict[str, Any]
TRACES = Path(__file__).resolve().parents[2] / "datasets" / "traces"
SECOND = 1_000_000


def track(events: list[Event], name: str, pid: int = 1) -> list[tuple[str, int, int]]:
    """Slices of the track of that name: (name, begin, end), in microseconds."""
    tids = {e["tid"] for e in events if (e["name"], e["pid"]) == ("thread_name", pid) and e["args"] == {"name": name}}
    return [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X" and e["tid"] in tids]


def marks(events: list[Event]) -> list[tuple[str, int]]:
    return [(e["name"], e["ts"]) for e in events if e["ph"] == "i"]


def counter(events: list[Event], name: str) -> list[tuple[int, dict[str, int]]]:
    return [(e["ts"], e["args"]) for e in events if (e["ph"], e["name"]) == ("C", name)]


def broken_rules(events: list[Event]) -> list[str]:
    """What the Trace Event Format forbids, or a viewer would draw wrongly."""
    broken = [f"{e} has no place" for e in events if {type(e.get(key)) for key in ("pid", "tid")} != {int}]
    timed = [e for e in events if e["ph"] != "M"]
    broken += [f"{e['ph']} is no phase of ours" for e in timed if e["ph"] not in "XiC"]
    broken += [f"{e} has no whole time" for e in timed if type(e["ts"]) is not int or e["ts"] < 0]
    broken += [f"{e} has no duration" for e in timed if e["ph"] == "X" and (type(e["dur"]) is not int or e["dur"] < 0)]
    broken += [f"{e} has no scope" for e in timed if e["ph"] == "i" and e["s"] not in ("t", "p")]
    numbers = ((e, value) for e in timed if e["ph"] == "C" for value in e["args"].values())
    broken += [f"{e} counts no number" for e, value in numbers if type(value) is not int]
    if [e["ts"] for e in timed] != sorted(e["ts"] for e in timed):
        broken.append("events are out of order")
    open_until: dict[tuple[int, int], list[int]] = defaultdict(list)
    for e in (e for e in timed if e["ph"] == "X"):
        around = open_until[e["pid"], e["tid"]]
        while around and around[-1] <= e["ts"]:
            around.pop()
        if around and e["ts"] + e["dur"] > around[-1]:
            broken.append(f"{e} begins inside another slice of its track and ends after it")
        around.append(e["ts"] + e["dur"])
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    broken += [f"{e} is on a track without a name" for e in timed if (e["pid"], e["tid"]) not in named]
    return broken


def test_a_request_waits_prefills_and_decodes_on_its_own_track():
    events = perfetto.events([two_requests()])
    assert track(events, "a") == [("prefill 5", 0, SECOND), ("decode 2", SECOND, 4 * SECOND)]
    assert track(events, "b") == [
        ("waiting", SECOND // 2, SECOND),
        ("prefill 1", SECOND, 2 * SECOND),
        ("decode 1", 2 * SECOND, 4 * SECOND),
    ]
    assert marks(events) == [
        ("prefix hit: 4 tokens", SECOND),
        ("finished: length", 4 * SECOND),
        ("finished: length", 4 * SECOND),
    ]


def test_a_step_holds_its_phases():
    assert track(perfetto.events([two_requests()]), "steps")[-4:] == [
        ("step 2", 2 * SECOND, 4 * SECOND),
        ("schedule", 2 * SECOND, 2 * SECOND + 125_000),
        ("forward", 2 * SECOND + 125_000, 4 * SECOND - 125_000),
        ("update", 4 * SECOND - 125_000, 4 * SECOND),
    ]


def test_counters_hold_during_a_step_and_blocks_are_counted_at_its_end():
    events = perfetto.events([two_requests()])
    # nobody is left after the last step
    assert counter(events, "batch size") == [
        (0, {"sequences": 1}),
        (SECOND, {"sequences": 2}),
        (2 * SECOND, {"sequences": 2}),
        (4 * SECOND, {"sequences": 0}),
    ]
    assert [c["scheduled"] for _, c in counter(events, "tokens per step")] == [5, 2, 2, 0]
    assert counter(events, "KV used") == [
        (SECOND, {"blocks": 2}),
        (2 * SECOND, {"blocks": 3}),
        (4 * SECOND, {"blocks": 0}),
    ]


def test_an_engine_that_is_left_by_its_last_request_idles_until_the_next():
    trace = two_requests()
    # vLLM on a GPU still counts who ended in the step before
    steps = (*trace.step_records[:2], replace(trace.step_records[2], num_running=7))
    late = replace(trace.step_records[2], step=3, t_s=20.0)  # began at 18
    events = perfetto.events([Trace(trace.header, trace.request_records, (*steps, late))])
    sizes = counter(events, "batch size")
    assert sizes[-3:] == [
        (4 * SECOND, {"sequences": 0}),
        (18 * SECOND, {"sequences": 2}),
        (20 * SECOND, {"sequences": 0}),
    ]


def test_a_preempted_request_waits_again_and_recomputes():
    events = perfetto.events([hand_written.preemption_in_blocks()])
    assert track(events, "q") == [
        ("waiting", 0, SECOND),
        ("prefill 4", SECOND, SECOND),  # the first step does not say how long it took
        ("waiting after preemption", SECOND, 3 * SECOND),
        ("recompute 5", 3 * SECOND, 4 * SECOND),
        ("decode 1", 4 * SECOND, 5 * SECOND),
    ]
    assert ("preempted", SECOND) in marks(events)


def test_steps_without_durations_are_marks_and_have_no_phases():
    events = perfetto.events([hand_written.preemption_in_blocks()])
    assert track(events, "steps") == []
    assert [m for m in marks(events) if m[0].startswith("step")][:2] == [("step 0", SECOND), ("step 1", 2 * SECOND)]


def test_an_engine_without_kv_has_no_kv_counter():
    assert counter(perfetto.events([hand_written.drafts_accepted_and_rejected()]), "KV used") == []


def test_cells_are_counted_as_cells():
    kv_used = counter(perfetto.events([hand_written.prefix_sharing_in_cells()]), "KV used")
    assert kv_used[0][1].keys() == {"cells"}


def test_accepted_drafts_count_as_tokens_of_the_decode_run():
    # two tokens in step 1, one in step 2, one in step 3
    assert track(perfetto.events([hand_written.drafts_accepted_and_rejected()]), "a")[-1][0] == "decode 4"


def test_a_pause_between_two_decode_steps_is_seen():
    shares = [share("a", "decode", 1, 4 + i, 4, 1 + i) for i in range(3)]
    steps = (step(0, shares[:1], None, {"a": 5}), step(1, [], None, {}), step(2, shares[1:2], None, {"a": 5}))
    events = perfetto.events([Trace(Header(engine="simulated"), (), steps)])
    assert track(events, "a") == [("decode 1", SECOND, SECOND), ("decode 1", 2 * SECOND, 3 * SECOND)]


def test_a_step_that_began_before_the_last_one_ended_is_drawn_beside_it():
    trace = with_step(two_requests(), 2, forward_s=2.25)  # began at 1.5, step 1 ended at 2
    events = perfetto.events([trace])
    assert track(events, "steps, overlapping")[0] == ("step 2", 3 * SECOND // 2, 4 * SECOND)
    assert track(events, "a")[-1] == ("decode 2", SECOND, 4 * SECOND)
    assert broken_rules(events) == []


def test_of_a_request_that_ran_before_the_trace_began_nothing_is_said_to_wait():
    trace = two_requests()
    steps = tuple(replace(s, kv=None) for s in trace.step_records[1:])
    events = perfetto.events([Trace(trace.header, trace.request_records, steps)])
    assert track(events, "a") == [("decode 2", SECOND, 4 * SECOND)]


def test_a_request_that_never_ran_waits_to_the_end():
    events = perfetto.events([hand_written.died_in_the_middle()])
    assert track(events, "b") == [("waiting", SECOND // 2, 3 * SECOND // 2)]
    died = next(e for e in events if e["name"] == "died")
    assert (died["ts"], died["s"], died["args"]) == (3 * SECOND // 2, "p", {"text": "SIGKILL"})


def test_nothing_lies_before_the_beginning_of_the_clock():
    events = perfetto.events([with_request(two_requests(), "a", arrival_s=-0.5)])
    assert track(events, "a")[0] == ("waiting", 0, SECOND // 2)
    assert track(events, "steps")[0] == ("step 0", SECOND // 2, 3 * SECOND // 2)


def test_two_engines_are_two_processes_on_one_clock():
    first = with_header(two_requests(), engine="vllm", started_at=1000.0)
    second = with_header(two_requests(), engine="llamacpp", started_at=1002.0)
    events = perfetto.events([second, first])
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {1: "llamacpp · simulated", 2: "vllm · simulated"}
    assert track(events, "steps", pid=2)[0] == ("step 0", 0, SECOND)
    assert track(events, "steps", pid=1)[0] == ("step 0", 2 * SECOND, 3 * SECOND)
    assert broken_rules(events) == []


def test_names_are_data_and_who_measured_is_said(tmp_path: Path):
    name = '</script>"\\ \N{SNOWMAN}'
    header = Header(engine="vllm", engine_version="0.26.0", model="<b>", device="NVIDIA H200", source="measured")
    trace = Trace(header, (Request(request_id=name, arrival_s=0.0, prompt_token_ids=()),))
    written = trace.to_perfetto(tmp_path / "t.json").read_text(encoding="utf-8")
    events = json.loads(written)["traceEvents"]
    assert name in [e["args"].get("name") for e in events]
    assert events[0]["args"] == {"name": "vllm 0.26.0 · <b> · NVIDIA H200 · measured"}
    assert "\\u" not in written  # Perfetto 52 shows \u00b7 in a name as it stands


def test_half_a_character_in_a_text_does_not_stop_the_export(tmp_path: Path):
    trace = with_step(two_requests(), 0, tokens=(Token(request_id="a", token_id=6, text="\ud83d"),))
    assert json.loads(trace.to_perfetto(tmp_path / "t.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_the_file_is_what_the_viewers_open(tmp_path: Path, suffix: str):
    path = two_requests().to_perfetto(tmp_path / f"t{suffix}")
    data = gzip.decompress(path.read_bytes()) if suffix.endswith("gz") else path.read_bytes()
    assert json.loads(data) == {"displayTimeUnit": "ms", "traceEvents": perfetto.events([two_requests()])}


def test_a_file_that_cannot_be_written_is_a_trace_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(TraceError, match="Make the folder first"):
        two_requests().to_perfetto(tmp_path / "no" / "t.json")


def test_a_trace_without_steps_is_no_error():
    assert broken_rules(perfetto.events([Trace(Header(engine="simulated"))])) == []


@pytest.mark.parametrize("kind", ["blocks", "cells"])
def test_random_schedules_with_steps_that_overlap_keep_the_rules_of_the_format(kind: str):
    for seed in range(30):
        trace, rng = random_trace(seed, kind), random.Random(seed)
        lasting = tuple(
            replace(s, schedule_s=rng.uniform(0, 0.1), forward_s=rng.uniform(0, 4), update_s=rng.uniform(0, 0.1))
            for s in trace.step_records
        )
        for steps in (trace.step_records, lasting):
            events = perfetto.events([Trace(trace.header, trace.request_records, steps)])
            assert broken_rules(events) == [], seed


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.jsonl.gz")), ids=lambda p: p.name)
def test_recorded_traces_keep_the_rules_of_the_format(path: Path):
    trace = Trace.load(path)
    events = perfetto.events([trace])
    assert broken_rules(events) == []
    finished = sum(len(s.finished) for s in trace.step_records)
    assert sum(name.startswith("finished") for name, _ in marks(events)) == finished > 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"dur": 10 * SECOND}, "ends after it"),
        ({"dur": 0.5}, "no duration"),
        ({"ts": 99 * SECOND}, "out of order"),
        ({"ts": -1}, "no whole time"),
        ({"tid": 99}, "without a name"),
    ],
)
def test_the_rules_see_a_file_that_breaks_them(change: Event, rule: str):
    events = perfetto.events([two_requests()])
    place = next(i for i, e in enumerate(events) if e["name"] == "schedule")
    events[place] = events[place] | change
    assert rule in " ".join(broken_rules(events))
