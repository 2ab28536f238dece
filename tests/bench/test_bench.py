"""bench() on engines whose answers and speed are known: the fake engine, inline."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

import llmlab
from llmlab.bench import Bench, workload
from llmlab.bench.drive import Drive
from llmlab.bench.plan import plan_of
from llmlab.bench.progress import Progress
from llmlab.bench.workloads import Arrivals
from llmlab.errors import EngineError, LlmlabError, RequestError

SHORT = replace(workload("burst"), max_tokens=(4, 8))
QUICK = dict(workload=SHORT, sweep=[4], repeats=1, warm_up=0)


def test_two_engines_take_turns_and_stand_in_one_table(load_named):
    a = load_named("a", step_s=0.005)
    load_named("b", step_s=0.020)
    moments: list[Progress] = []
    result = llmlab.bench([a, "b"], workload=SHORT, sweep=[2, 4], repeats=2, warm_up=1, progress=moments.append)
    assert [(m.engine, m.load, m.repeat) for m in result.measurements] == [
        ("a", 2, 0), ("b", 2, 0), ("a", 4, 0), ("b", 4, 0), ("a", 2, 1), ("b", 2, 1), ("a", 4, 1), ("b", 4, 1),
    ]  # fmt: skip
    assert all(m.is_complete and m.num_ended == m.load for m in result.measurements)
    table = result.table()
    assert list(table["engine"]) == ["a", "a", "b", "b"] and list(table["repeats"]) == [2, 2, 2, 2]
    slow, fast = table[table.engine == "b"], table[table.engine == "a"]
    assert (slow.tpot_p50_s.to_numpy() >= 0.020).all() and (fast.tpot_p50_s.to_numpy() >= 0.005).all()
    assert moments[-1].num_ended == moments[-1].num_requests == 2 * (1 + 2 * (2 + 4))
    assert {m.engine for m in moments} == {"a", "b"}


def test_every_request_gets_the_answer_length_of_the_plan_so_all_engines_do_the_same_work(load_named):
    plan = plan_of(SHORT, load=4, seed=0)
    wanted = sum(turn.num_tokens for talk in plan.talks for turn in talk.turns)
    result = llmlab.bench(load_named("a"), **QUICK)
    assert [m.num_output_tokens for m in result.measurements] == [wanted]


def test_arrivals_do_not_wait_for_a_slow_engine(load_named):
    handle = load_named("slow", seqs=1, step_s=0.01)
    drive = Drive(handle, plan_of(workload("poisson"), load=20, seed=2, num_requests=6), salt="s")
    drive.run(lambda num_ended: None)
    trace, planned = drive.trace, plan_of(workload("poisson"), load=20, seed=2, num_requests=6)
    arrived = [request.arrival_s for request in trace.request_records]
    due = [talk.arrival_s for talk in planned.talks]
    assert [at_s - arrived[0] for at_s in arrived] == pytest.approx(due, abs=1e-6)
    # One request at a time, some 20 steps each: the last one waited for the others, and its clock ran.
    times = llmlab.metrics.request_times(trace)
    last = list(times.values())[-1]
    assert llmlab.metrics.ttft_s(last) > 0.5


def test_a_closed_loop_never_has_more_requests_open_than_users(load_named):
    handle = load_named("a", step_s=0.002)
    drive = Drive(handle, plan_of(workload("closed_loop"), load=3, seed=0, num_requests=9), salt="s")
    drive.run(lambda num_ended: None)
    assert drive.num_ended == 9
    assert max(llmlab.metrics.batch_size(drive.trace)) == 3


def test_a_next_turn_holds_the_whole_conversation_with_the_engines_own_answer(load_named):
    handle = load_named("a")
    drive = Drive(handle, plan_of(workload("chat_turns"), load=1, seed=0, num_requests=2), salt="s")
    drive.run(lambda num_ended: None)
    first, second = (run.results[0] for run in drive._runs)
    prompts = ["".join(map(chr, result.prompt_token_ids)) for result in (first, second)]
    assert prompts[1].startswith(f"{prompts[0]}<assistant>{first.text}<user>")


def test_repeats_do_not_find_the_kv_of_the_repeat_before(load_named):
    one_by_one = replace(workload("shared_system_prompt"), arrivals=Arrivals("closed"), max_tokens=(2, 2))
    result = llmlab.bench(load_named("a"), workload=one_by_one, sweep=1, repeats=2, num_requests=4)
    rates = [m.prefix_hit_rate for m in result.measurements]
    # The first of 4 found nothing but the template, the others the system prompt; nobody found a whole question.
    assert rates[0] == pytest.approx(rates[1], abs=0.02) and 0.70 < rates[0] < 0.76


def test_limits_that_nobody_meets_give_a_goodput_of_0_and_a_sentence(load_named):
    result = llmlab.bench(load_named("a", step_s=0.01), slo={"ttft": 0.001}, **QUICK)
    assert [m.goodput_rps for m in result.measurements] == [0.0]
    assert any("no request met TTFT ≤ 0.001 s, so goodput is 0 (best TTFT" in note for note in result.notes())
    assert "goodput is 0" in repr(result)


def test_limits_that_all_meet_give_the_request_rate_and_without_limits_there_is_no_goodput(load_named):
    handle = load_named("a")
    good = llmlab.bench(handle, slo="ttft=60,tpot=60,e2e=60", **QUICK).measurements[0]
    assert good.goodput_rps == good.request_throughput_rps > 0
    assert llmlab.bench(handle, **QUICK).measurements[0].goodput_rps is None


def test_stop_keeps_what_was_measured_and_the_engine_goes_on(load_named):
    handle = load_named("a", step_s=0.01)
    stopper = threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT))
    stopper.start()
    result = llmlab.bench(handle, workload=SHORT, sweep=[2], repeats=50, warm_up=0)
    assert result.is_stopped and 1 <= len(result.measurements) < 50
    assert result.notes()[0].startswith("Stopped before the end")
    assert handle.num_open_requests == 0 and handle.generate("Hi", max_tokens=2).text == "Hi"


def test_stop_before_anything_was_measured_is_an_interrupt_like_any_other(load_named):
    handle = load_named("a", step_s=0.05)
    threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        llmlab.bench(handle, workload=SHORT, sweep=[2], repeats=50, warm_up=2)
        time.sleep(1)


@pytest.mark.slow
def test_an_engine_that_dies_is_left_out_and_the_other_goes_on(load_named):
    mortal, other = load_named("mortal", isolation="host", step_s=0.2), load_named("other")
    deadly = [lambda: os.kill(mortal.pid, signal.SIGKILL)]  # in the middle of its first answers
    result = llmlab.bench(
        [mortal, other],
        workload=SHORT,
        sweep=[2, 3],
        repeats=1,
        warm_up=0,
        progress=lambda _: deadly and deadly.pop()(),
    )
    assert [m.load for m in result.measurements if m.engine == "other" and m.is_complete] == [2, 3]
    assert any("mortal at 2 requests at once" in problem and "SIGKILL" in problem for problem in result.problems)


def test_requests_that_are_refused_are_counted_and_said(load_named):
    result = llmlab.bench(load_named("a", ctx=500), workload="mixed", sweep=[100], repeats=1, warm_up=0, seed=3)
    (measurement,) = result.measurements
    assert 0 < measurement.num_ended < measurement.num_requests and not measurement.is_complete
    assert any("max_model_len is 500" in problem for problem in result.problems)


def test_a_measurement_is_the_same_after_it_was_saved_and_read_back(load_named, tmp_path: Path):
    result = llmlab.bench(load_named("a"), slo="ttft=1", **QUICK)
    assert Bench.load(result.save(tmp_path / "b.json")) == result
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(LlmlabError, match=r"c\.json holds no measurement"):
        Bench.load(tmp_path / "c.json")


def test_what_cannot_be_measured_is_refused_before_anything_is_sent(load_named):
    a = load_named("a")
    for arguments, message in [
        (dict(engines=[a, a]), "each once"),
        (dict(engines=["a", "nobody"]), "Unknown engine name 'nobody'"),
        (dict(engines=a, sweep=[]), "sweep is empty"),
        (dict(engines=a, repeats=0), "repeats is 0"),
        (dict(engines=a, slo={"ttfb": 1}), "Unknown limit 'ttfb'"),
        (dict(engines=a, slo="ttft=soon"), "give seconds"),
        (dict(engines=a, slo={"tpot": 0}), "must be above 0"),
    ]:
        with pytest.raises(LlmlabError, match=message):
            llmlab.bench(**arguments)
    a.pause()
    with pytest.raises(RequestError, match="paused"):
        llmlab.bench(a)
    a.unload()
    with pytest.raises(EngineError, match="not loaded any more"):
        llmlab.bench(a)
