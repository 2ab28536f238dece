"""A saved trace as an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_loading import LoadFake
from msgspec.structs import replace

from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.errors import EngineError, RequestError, TraceError
from llmlab.trace import Incident, Trace
from llmlab.trace.example import two_requests

Replay = Callable[..., EngineHandle]


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Replay]:
    """load() of a trace as an engine, inline."""

    def load_it(trace: Trace, **options: float) -> EngineHandle:
        handle = load(str(trace.save(tmp_path / "run.jsonl.gz")), isolation="inline", options=options)
        assert isinstance(handle, EngineHandle)
        return handle

    yield load_it
    registry.unload(all=True)


@pytest.fixture
def recorded(load_fake: LoadFake) -> Trace:
    """Ten requests on four seats, after another one whose cells are still kept."""
    eng = load_fake(step_s=0.01, seqs=4, num_cells=150)
    eng.generate("before", max_tokens=3)
    run = eng.batch([f"prompt {i}" for i in range(10)], max_tokens=12, arrivals=[0.02 * i for i in range(10)])
    run.wait()
    assert run.trace.header.kv_at_start is not None
    return run.trace


def texts(trace: Trace) -> dict[str, str]:
    found = {r.request_id: "" for r in trace.request_records}
    for step in trace.step_records:
        for token in step.tokens:
            found[token.request_id] += token.text
    return found


def test_a_trace_file_is_loaded_as_an_engine_by_its_name_alone(recorded: Trace, tmp_path: Path):
    path = recorded.save(tmp_path / "run.jsonl")
    with load(str(path)) as eng:
        assert eng.engine == "replay"
        assert eng.header.engine == "fake"
        assert eng.capabilities == recorded.header.capabilities
        assert eng.generate("prompt 3").text == "prompt 3prom"


def test_a_recorded_prompt_is_answered_as_it_was_at_its_pace(recorded: Trace, replay: Replay):
    result = replay(recorded).generate("prompt 3")
    assert (result.text, result.finish_reason) == ("prompt 3prom", "length")
    request = next(r for r in recorded.request_records if r.prompt_text == "<user>prompt 3")
    assert result.prompt_token_ids == request.prompt_token_ids
    times_s = [s.t_s for s in recorded.step_records for t in s.tokens if t.request_id == request.request_id]
    assert result.ttft_s == pytest.approx(times_s[0] - request.arrival_s, abs=0.05)
    assert result.e2e_s == pytest.approx(times_s[-1] - request.arrival_s, abs=0.1)
    assert result.trace.validate() == []


@pytest.mark.parametrize("prompt", ["<user>prompt 3", list(b"<user>prompt 3")], ids=["text", "token ids"])
def test_a_prompt_is_found_as_it_was_sent_too(recorded: Trace, replay: Replay, prompt: str | list[int]):
    assert replay(recorded, speed=0).generate(prompt, raw=True).text == "prompt 3prom"


def test_what_was_not_recorded_is_refused_with_what_was(recorded: Trace, replay: Replay):
    with pytest.raises(RequestError) as caught:
        replay(recorded).generate("nonsense")
    lines = str(caught.value).splitlines()
    assert lines[0] == "This engine replays a trace and answers only what was recorded:"
    assert lines[1].endswith(": '<user>prompt 0'")
    assert lines[-2] == "  and 5 more"
    assert lines[-1] == "Send one of these, or play all of it: `.replay()`."


def test_the_whole_trace_is_played_with_all_its_steps(recorded: Trace, replay: Replay):
    eng = replay(recorded)
    run = eng.replay()
    results = run.wait()
    played = run.trace
    own = {name: text for name, text in texts(recorded).items() if text}
    assert {r.request_id.removesuffix("#1"): r.text for r in results} == own
    assert played.validate() == []
    assert [s.num_scheduled_tokens for s in played.step_records] == [
        s.num_scheduled_tokens for s in recorded.step_records
    ]
    assert [s.kv.num_used for s in played.step_records if s.kv] == [
        s.kv.num_used for s in recorded.step_records if s.kv
    ]
    took_s = [trace.step_records[-1].t_s - trace.step_records[0].t_s for trace in (recorded, played)]
    assert took_s[1] == pytest.approx(took_s[0], rel=0.2)


def test_a_whole_trace_can_be_played_again_and_the_session_stays_sound(recorded: Trace, replay: Replay):
    eng = replay(recorded, speed=0)
    first, second = eng.replay().wait(), eng.replay().wait()
    assert [r.text for r in first] == [r.text for r in second]
    assert eng.trace.validate() == []


def test_a_trace_from_the_very_beginning_shows_its_cache_each_time(load_fake: LoadFake, replay: Replay):
    source = load_fake(seqs=4)
    source.batch([f"prompt {i}" for i in range(6)], max_tokens=5).wait()
    eng = replay(source.trace, speed=0)
    used = []
    for _ in range(2):
        run = eng.replay()
        run.wait()
        used.append([s.kv.num_used for s in run.trace.step_records if s.kv and s.scheduled])
    assert used[0] == used[1] != []
    assert eng.trace.validate() == []


def test_blocks_are_played_like_cells_twice(replay: Replay):
    eng = replay(two_requests(), speed=0)
    for _ in range(2):
        run = eng.replay()
        run.wait()
        assert [len(s.tokens) for s in run.trace.step_records if s.scheduled] == [1, 2, 2]
    assert eng.trace.validate() == []


def test_speed_divides_the_waiting(recorded: Trace, replay: Replay):
    took_s = {}
    for speed in (1, 4):
        run = replay(recorded, speed=speed).replay()
        run.wait()
        took_s[speed] = run.trace.step_records[-1].t_s - run.trace.step_records[0].t_s
    assert took_s[1] / took_s[4] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(("late_s", "ttft_s"), [(0.0, 1.0), (100.0, 2.0)], ids=["at once", "after ages"])
def test_a_play_waits_for_its_first_step_as_it_was_but_not_for_ages(replay: Replay, late_s: float, ttft_s: float):
    # The first step takes a second; before it, a play waits for one second at most.
    recorded = two_requests()
    steps = tuple(replace(step, t_s=step.t_s + late_s) for step in recorded.step_records)
    eng = replay(Trace(recorded.header, recorded.request_records, steps), speed=10)
    first, _ = eng.replay().wait()
    assert first.ttft_s == pytest.approx(ttft_s / 10, abs=0.04)


def test_a_stopped_replay_ends_and_can_be_played_again(recorded: Trace, replay: Replay):
    eng = replay(recorded)
    run = eng.replay()
    next(iter(run))
    with pytest.raises(RequestError, match="The trace is being played"):
        eng.replay()
    run.stop()
    assert {r.finish_reason for r in run.results} == {"interrupted"}
    assert len(eng.replay().wait(timeout=20)) == 10
    assert eng.trace.validate() == []


def test_single_answers_and_pauses_work_on_a_replay(recorded: Trace, replay: Replay):
    eng = replay(recorded, speed=0)
    eng.pause()
    run = eng.batch(["prompt 1", "prompt 2"])
    eng.step(3)
    assert 0 < sum(r.num_output_tokens for r in run.results) <= 3
    eng.resume()
    assert [r.text for r in run.wait()] == ["prompt 1prom", "prompt 2prom"]


def test_an_answer_whose_end_was_not_recorded_ends_as_its_trace_does(replay: Replay):
    whole = two_requests()
    ends = {"cut": "abort", "died": "error"}
    for kind, reason in ends.items():
        incident = Incident(incident=kind, t_s=2.5, requests=("a", "b"))  # type: ignore[arg-type]
        trace = Trace(whole.header, whole.request_records, whole.step_records[:2], (incident,))
        assert trace.validate() == []
        results = replay(trace, speed=0).replay().wait()
        assert [r.finish_reason for r in results] == [reason, reason]


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_text("no trace\n")
    with pytest.raises(TraceError, match="line 1"):
        load(str(path), isolation="inline")


@pytest.mark.parametrize(
    ("options", "text"),
    [({"speed": -1}, "speed is -1; it must be above 0"), ({"sped": 1}, "Unknown option 'sped'. Known: speed.")],
    ids=str,
)
def test_a_wrong_option_is_refused(replay: Replay, options: dict[str, float], text: str):
    with pytest.raises(EngineError, match=text):
        replay(two_requests(), **options)


def test_another_engine_has_nothing_to_replay(load_fake: LoadFake):
    with pytest.raises(EngineError, match=r"The fake engine has no begin_replay\(\)"):
        load_fake().replay()
