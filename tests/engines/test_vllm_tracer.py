"""The tracer around vLLM's real scheduler: every trace is sound, whatever was aborted, preempted or in flight."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from vllm_driver import BLOCK_SIZE, VOCAB, Driver, tiny_model

from llmlab.engines.vllm_blocks import BlockWatcher
from llmlab.engines.vllm_changes import BlockChanges
from llmlab.engines.vllm_steps import StepRecorder
from llmlab.engines.vllm_tracer import Tracer
from llmlab.trace import BlockDelta, Capabilities, Header, Request, Step, Trace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]

# What the scheduler is told, and what the driver does with its steps.
KINDS: dict[str, dict[str, Any]] = {
    "sync": {},
    "async": {"max_in_flight": 2},
    "three in flight": {"max_in_flight": 3},
    "drafts": {"num_drafts": 2},
    "async drafts": {"num_drafts": 2, "max_in_flight": 2},
    "priority": {"policy": "priority"},
    "async priority": {"policy": "priority", "max_in_flight": 2},
    "no prefix caching": {"prefix_caching": False},
    "two groups": {"groups": ("full", "window"), "num_blocks": 30},
    "async two groups": {"groups": ("full", "window"), "num_blocks": 30, "max_in_flight": 2},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@dataclass
class Run:
    """A driver with a tracer, and what it traced."""

    driver: Driver
    level: str = "full"
    requests: list[Request] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracer = Tracer(self.driver.scheduler, level=self.level)
        self.tracer.attach()

    def add(self, name: str, prompt: Sequence[int], max_tokens: int, **sampling: Any) -> None:
        self.driver.add(name, prompt, max_tokens, **sampling)
        arrival_s = time.monotonic() - self.tracer.epoch_s
        self.requests.append(Request(request_id=name, arrival_s=arrival_s, prompt_token_ids=tuple(prompt)))

    def turn(self, *, end: Callable[[Step], str | None] = lambda step: None) -> None:
        """One turn; `end` may name a request that the engine ends with a step, as at a stop string."""
        self.driver.turn()
        for step in self.tracer.take():
            if name := end(step):
                self.driver.abort([name])
                self.tracer.forget(name)
                step = replace(self.tracer.settle(step), finished={**step.finished, name: "stop"})
            self.steps.append(step)

    def finish(self) -> Trace:
        while not self.driver.is_idle:
            self.turn()
        return self.trace

    @property
    def alive(self) -> list[str]:
        ended = {name for step in self.steps for name in step.finished}
        return [request.request_id for request in self.requests if request.request_id not in ended]

    @property
    def trace(self) -> Trace:
        pool = self.driver.scheduler.kv_cache_manager.block_pool
        header = Header(
            engine="vllm",
            capabilities=Capabilities(kv="blocks", block_table=True, speculative=self.driver.num_drafts > 0),
            block_size=BLOCK_SIZE,
            num_blocks=pool.num_gpu_blocks - 1,
            max_model_len=128,
            max_num_seqs=self.driver.scheduler.max_num_running_reqs,
            token_budget=self.driver.scheduler.max_num_scheduled_tokens,
        )
        return Trace(header, tuple(self.requests), tuple(self.steps))


def bad_day(model: Path, seed: int, level: str, **settings: Any) -> Run:
    """Twelve requests over few blocks, some with a shared prefix, some aborted, some ended at a stop string."""
    drawn = random.Random(seed)
    run = Run(Driver(model, seed=seed, **settings), level)
    prefix = [drawn.randrange(3, VOCAB) for _ in range(12)]
    to_come = 12
    for _ in range(3000):
        if to_come and drawn.random() < 0.4:
            own = [drawn.randrange(3, VOCAB) for _ in range(drawn.randint(1, 20))]
            prompt = prefix + own if to_come % 3 == 0 else own
            run.add(f"r{to_come}", prompt, drawn.randint(1, 24), priority=drawn.randint(0, 3))
            to_come -= 1
        if run.alive and drawn.random() < 0.03:
            run.driver.abort([drawn.choice(run.alive)])

        def stop(step: Step) -> str | None:
            names = [t.request_id for t in step.tokens if t.request_id not in step.finished]
            return names[-1] if names and drawn.random() < 0.03 else None

        run.turn(end=stop)
        if not to_come and run.driver.is_idle:
            return run
    raise AssertionError(f"{run.alive} never end")


# ---- the invariants


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_random_workloads_keeps_the_invariants(model: Path, kind: str) -> None:
    """20 workloads of each kind, 200 in all; both levels of tracing tell the same of each."""
    seen: Counter[str] = Counter()
    for seed in range(20):
        full, delta = (bad_day(model, seed, level, **KINDS[kind]) for level in ("full", "delta"))
        for run in (full, delta):
            assert run.tracer.num_errors == 0, (seed, run.level, run.tracer.last_error)
            assert run.trace.validate() == [], (seed, run.level)
            assert run.alive == [], (seed, run.level)
        assert [timeless(step) for step in full.steps] == [timeless(step) for step in delta.steps], seed
        for step in full.steps:
            assert isinstance(step.kv, BlockDelta)
            seen.update(
                preempted=len(step.preempted), hits=sum(step.prefix_hits.values()), evicted=len(step.kv.evicted)
            )
            seen.update(row.phase for row in step.scheduled)
            seen.update(step.finished.values())
            seen["drafts"] += sum(row.num_draft_tokens for row in step.scheduled)
            seen["shared"] += sum(count > 1 for count in step.kv.ref_counts.values())
            seen["groups"] += len(step.kv.groups)
        last = full.steps[-1].kv
        assert isinstance(last, BlockDelta) and last.num_free == last.num_blocks
    wanted = {"preempted", "prefill", "decode", "recompute", "length", "abort", "stop"}
    wanted |= {"hits", "evicted", "shared"} if KINDS[kind].get("prefix_caching", True) else set()
    wanted |= {"drafts"} if "drafts" in kind else set()
    wanted |= {"groups"} if "groups" in kind else set()
    assert {name for name in wanted if not seen[name]} == set()


def timeless(step: Step) -> Step:
    """Without times and the head of the free queue, which only one level has; the order of blocks within a step may
    differ."""
    kv = step.kv
    assert isinstance(kv, BlockDelta)
    same = replace(
        kv,
        free_head=(),
        cached=tuple(sorted(kv.cached)),
        evicted=tuple(sorted(kv.evicted)),
        freed={name: tuple(sorted(blocks)) for name, blocks in sorted(kv.freed.items())},
        ref_counts=dict(sorted(kv.ref_counts.items())),
    )
    return replace(step, t_s=0.0, schedule_s=None, forward_s=None, update_s=None, kv=same)


def test_a_tracer_that_takes_blocks_in_flight_for_blocks_of_the_step_is_found_out(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BlockWatcher, "_held_in_flight", lambda self: {})
    rules = {violation.rule for violation in bad_day(model, 1, "full", max_in_flight=2).trace.validate()}
    assert {"ref_count", "total"} <= rules


def test_a_tracer_that_keeps_blocks_of_who_ended_is_found_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockChanges, "forget", lambda self, request_id, held: held)
    rules = {violation.rule for violation in bad_day(model, 1, "delta", max_in_flight=2).trace.validate()}
    assert "end" in rules


# ---- what single fields say


def test_the_rows_of_a_request_go_from_prefill_chunks_to_decode(model: Path) -> None:
    run = Run(Driver(model, token_budget=8, num_blocks=12))
    run.add("a", range(10, 30), 3)
    rows = [
        (row.phase, row.num_tokens, row.num_computed_tokens, row.num_output_tokens)
        for step in run.finish().step_records
        for row in step.scheduled
    ]
    assert rows == [
        ("prefill", 8, 0, 0),
        ("prefill", 8, 8, 0),
        ("prefill", 4, 16, 0),
        ("decode", 1, 20, 1),
        ("decode", 1, 21, 2),
    ]


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_async_scheduling_gives_the_same_rows_and_blocks(model: Path, max_in_flight: int) -> None:
    """a has 6 prompt tokens and 4 answers in blocks of 4; what was scheduled after its end is not told."""
    run = Run(Driver(model, num_blocks=12, max_in_flight=max_in_flight))
    run.add("a", range(10, 16), 4, stop_token_ids=list(range(VOCAB)))
    steps = [step for step in run.finish().step_records if step.scheduled]
    assert [len(step.scheduled) for step in steps] == [1]
    assert steps[0].finished == {"a": "stop"} and len(steps[0].tokens) == 1
    assert isinstance(steps[0].kv, BlockDelta)
    assert steps[0].kv.allocated == {} and steps[0].kv.num_free == 12 and steps[0].kv.cached == (1,)


def test_a_late_step_of_a_request_that_ended_is_left_out_of_the_sums(model: Path) -> None:
    run = Run(Driver(model, num_blocks=12, max_in_flight=2))
    run.add("a", range(10, 16), 8, stop_token_ids=list(range(VOCAB)))
    run.add("b", range(20, 26), 8)
    steps = run.finish().step_records
    assert [(step.num_scheduled_tokens, [row.request_id for row in step.scheduled]) for step in steps[:2]] == [
        (12, ["a", "b"]),
        (1, ["b"]),
    ]


def test_who_waits_is_told_in_order(model: Path) -> None:
    run = Run(Driver(model, max_num_seqs=1))
    for i in range(70):
        run.add(f"r{i}", [5, 6], 1)
    run.turn()
    step = run.steps[0]
    assert (step.num_running, step.num_waiting) == (1, 69)
    assert step.waiting == tuple(f"r{i}" for i in range(1, 65))


def test_the_head_of_the_free_queue_is_what_is_handed_out_next(model: Path) -> None:
    run = Run(Driver(model, num_blocks=12))
    run.add("a", range(10, 22), 3)
    run.turn()
    kv = run.steps[-1].kv
    assert isinstance(kv, BlockDelta) and kv.allocated == {"a": (1, 2, 3)}
    assert kv.free_head == (4, 5, 6, 7, 8, 9, 10, 11, 12)
    run.add("b", range(30, 40), 2)
    run.turn()
    kv = run.steps[-1].kv
    assert isinstance(kv, BlockDelta) and kv.allocated == {"a": (4,), "b": (5, 6, 7)}


# ---- ends that vLLM does not decide


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_a_request_ended_by_the_engine_gives_its_blocks_back_in_the_step_that_is_settled(
    model: Path, max_in_flight: int
) -> None:
    run = Run(Driver(model, num_blocks=12, max_in_flight=max_in_flight))
    run.add("a", range(10, 20), 20)
    while len(run.steps) < 3 and not run.driver.is_idle:
        run.turn(end=lambda step: "a" if step.num_scheduled_tokens == 1 and len(run.steps) == 2 else None)
    kv = run.steps[2].kv
    assert isinstance(kv, BlockDelta)
    assert kv.freed == {"a": (1, 2, 3)} and kv.num_free == 12 and run.steps[2].finished == {"a": "stop"}
    assert run.finish().validate() == []
    assert all(not step.scheduled and not step.finished for step in run.steps[3:])


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_an_aborted_request_ends_in_the_next_step_and_once(model: Path, max_in_flight: int) -> None:
    run = Run(Driver(model, max_num_seqs=1, max_in_flight=max_in_flight))
    for name in "abc":
        run.add(name, range(10, 20), 20)
    run.turn()
    run.turn()
    run.driver.abort(["a", "c"])  # one runs, one waits
    num_before = len(run.steps)
    while len(run.steps) == num_before and not run.driver.is_idle:
        run.turn()
    assert run.steps[num_before].finished == {"a": "abort", "c": "abort"}
    assert run.finish().validate() == []


def test_an_engine_that_tells_its_aborts_itself_forgets_the_request(model: Path) -> None:
    run = Run(Driver(model, max_num_seqs=1, max_in_flight=2))
    for name in "abc":
        run.add(name, range(10, 20), 20)
    run.turn()
    run.driver.abort(["a", "c"])  # a is in flight and no step has told of it yet; c waits
    for name in "ac":
        run.tracer.forget(name)
    run.finish()
    assert {name for step in run.steps for name in step.finished} == {"b"}
    assert {row.request_id for step in run.steps for row in step.scheduled} == {"b"}


# ---- bad days


def test_a_forward_pass_that_fails_leaves_no_trace_of_blocks(model: Path) -> None:
    run = Run(Driver(model, num_blocks=12))
    run.add("a", range(10, 20), 8)
    run.turn()
    run.turn()
    run.driver.lose_step()
    run.driver.abort(["a"])
    assert run.driver.scheduler.reset_prefix_cache()
    run.add("b", range(10, 20), 8)
    trace = run.finish()
    assert trace.validate() == [] and run.tracer.num_errors == 0
    assert [step.prefix_hits for step in trace.step_records if step.prefix_hits] == []


@pytest.mark.parametrize("level", ["full", "delta"])
def test_a_reset_of_the_prefix_cache_is_told_as_evictions(model: Path, level: str) -> None:
    run = Run(Driver(model, num_blocks=12), level)
    run.add("a", range(10, 22), 1)
    run.finish()
    assert run.driver.scheduler.reset_prefix_cache()
    run.add("b", range(10, 22), 1)
    steps = run.finish().step_records
    told = [step.kv.evicted for step in steps if isinstance(step.kv, BlockDelta) and step.kv.evicted]
    assert [sorted(blocks) for blocks in told] == [[1, 2, 3]]
    assert run.trace.validate() == []


@pytest.mark.parametrize("level", ["full", "delta"])
def test_what_happens_while_it_is_detached_is_told_by_the_next_step(model: Path, level: str) -> None:
    run = Run(Driver(model, num_blocks=12), level)
    run.add("a", range(10, 22), 1)
    run.finish()
    run.tracer.detach()
    run.driver.add("unseen", range(30, 42), 1)
    while not run.driver.is_idle:
        run.driver.turn()
    assert run.tracer.take() == []
    run.tracer.attach()
    run.add("b", [*range(30, 42), 7], 1)
    trace = run.finish()
    assert trace.validate() == []
    assert [step.prefix_hits for step in trace.step_records if step.prefix_hits] == [{"b": 12}]


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_tokens_and_ends_come_when_the_blocks_cannot_be_read(model: Path, max_in_flight: int) -> None:
    run = Run(Driver(model, num_blocks=12, max_in_flight=max_in_flight))
    run.add("a", range(10, 20), 6)
    for _ in range(3):
        run.turn()
    pool = run.driver.scheduler.kv_cache_manager.block_pool
    run.tracer._blocks._pool = None  # type: ignore[union-attr]
    trace = run.finish()
    assert run.tracer.num_errors == 1 and "NoneType" in str(run.tracer.last_error)
    assert len([token for step in trace.step_records for token in step.tokens]) == 6
    assert trace.step_records[-1].kv is None and pool.get_num_free_blocks() == 12
    assert run.alive == [] and trace.validate() == []


def test_tokens_come_when_the_rows_cannot_be_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Driver(model))
    for name in ("_rows", "columns"):
        monkeypatch.setattr(run.tracer._recorder, name, lambda *of_a_step: 1 / 0)
    run.add("a", range(10, 20), 6)
    run.finish()
    assert len([token for step in run.steps for token in step.tokens]) == 6 and run.alive == []
    assert run.tracer.num_errors == len(run.steps) and str(run.tracer.last_error).startswith(
        "ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_columns_tell_what_records_would(model: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[Step]:
        runs = [bad_day(model, seed, "full", **KINDS[kind]) for seed in range(6)]
        no_times = dict(t_s=0.0, schedule_s=None, forward_s=None, update_s=None)
        return [replace(step, **no_times) for run in runs for step in run.steps]

    real, num_columns = StepRecorder.columns, 0

    def counted(recorder: StepRecorder, *of_a_step: Any) -> Any:
        nonlocal num_columns
        found = real(recorder, *of_a_step)
        num_columns += found is not None
        return found

    monkeypatch.setattr(StepRecorder, "columns", counted)
    with_columns = told()
    monkeypatch.setattr(StepRecorder, "columns", lambda *_: None)
    assert told() == with_columns
    assert num_columns > 20 or "drafts" in kind


def test_level_off_gives_tokens_ends_and_times_only(model: Path) -> None:
    run = Run(Driver(model), "off")
    run.add("a", range(10, 20), 2)
    first, second, *_ = run.finish().step_records
    assert (len(first.tokens), len(second.tokens), second.finished) == (1, 1, {"a": "length"})
    assert first.scheduled == () and first.kv is None and first.forward_s is not None


@pytest.mark.parametrize("level", ["full", "delta"])
@pytest.mark.parametrize("kind", ["sync", "async", "two groups", "async two groups"])
def test_a_trace_may_begin_at_any_step_with_a_snapshot(model: Path, kind: str, level: str) -> None:
    for num_before in range(1, 24, 2):
        settings = {"num_blocks": 20, **KINDS[kind]}
        run = Run(Driver(model, **settings), level)
        for i in range(6):
            run.add(f"r{i}", range(10, 24 + i), 12)
        while len(run.steps) < num_before and not run.driver.is_idle:
            run.turn()
        num_before = len(run.steps)
        snapshot, alive = run.tracer.snapshot(), run.alive
        whole = run.finish()
        rest = Trace(
            replace(whole.header, kv_at_start=snapshot),
            tuple(request for request in run.requests if request.request_id in alive),
            whole.step_records[num_before:],
        )
        assert rest.validate() == [], num_before
