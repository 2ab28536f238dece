"""The tracer in a real engine core of vLLM: real steps of a model with one layer and dummy weights."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from vllm_driver import tiny_model

from llmlab.engines.vllm_tracer import Tracer
from llmlab.trace import BlockDelta, Capabilities, Header, Request, Step, Trace

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
NUM_BLOCKS, TOKEN_BUDGET, NUM_SEQS = 20, 64, 8


class CoreRun:
    """What requests do to an engine core, step by step."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.core = client.engine_core
        self.tracer = Tracer(self.core.scheduler)

    def begin(self) -> None:
        assert self.core.reset_prefix_cache() is not False
        self.tracer = Tracer(self.core.scheduler)
        self.tracer.attach()
        self.requests: list[Request] = []
        self.steps: list[Step] = []

    def add(self, name: str, prompt: Sequence[int], max_tokens: int, **sampling: Any) -> None:
        from vllm import SamplingParams
        from vllm.v1.engine import EngineCoreRequest

        request = EngineCoreRequest(
            request_id=name,
            prompt_token_ids=list(prompt),
            mm_features=None,
            sampling_params=SamplingParams(max_tokens=max_tokens, ignore_eos=True, **sampling),
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self._client.add_request(request)
        arrival_s = time.monotonic() - self.tracer.epoch_s
        self.requests.append(Request(request_id=name, arrival_s=arrival_s, prompt_token_ids=tuple(prompt)))

    @property
    def alive(self) -> list[str]:
        ended = {name for step in self.steps for name in step.finished}
        return [request.request_id for request in self.requests if request.request_id not in ended]

    def turn(self) -> None:
        self._client.get_output()
        self.steps += self.tracer.take()

    def end(self) -> Trace:
        while self.core.scheduler.has_requests():
            self.turn()
        self.tracer.detach()
        assert self.tracer.num_errors == 0, self.tracer.last_error
        header = Header(
            engine="vllm",
            capabilities=Capabilities(kv="blocks", block_table=True),
            block_size=32,
            num_blocks=NUM_BLOCKS,
            max_model_len=384,
            max_num_seqs=NUM_SEQS,
            token_budget=TOKEN_BUDGET,
        )
        return Trace(header, tuple(self.requests), tuple(self.steps))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreRun]:
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    arguments = EngineArgs(
        model=str(tiny_model(tmp_path_factory.mktemp("tiny") / "model")),
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        num_gpu_blocks_override=NUM_BLOCKS + 1,
        max_model_len=384,
        max_num_seqs=NUM_SEQS,
        max_num_batched_tokens=TOKEN_BUDGET,
        kv_cache_memory_bytes=2**26,
        disable_log_stats=True,
    )
    engine = LLMEngine.from_engine_args(arguments)
    yield CoreRun(engine.engine_core)
    engine.engine_core.shutdown()


@pytest.mark.slow
def test_twelve_requests_over_twenty_blocks_with_a_shared_prefix_and_preemptions(run: CoreRun) -> None:
    """Four requests share 96 tokens, which are three blocks; 40 tokens each do not fit at once."""
    run.begin()
    prefix = list(range(100, 196))
    for i in range(12):
        own = [3 + (7 * i + j) % 250 for j in range(10 + 12 * i)]
        run.add(f"r{i}", prefix + [200 + i] * (5 + i) if i % 3 == 0 else own, 40, temperature=0, logprobs=3)
    trace = run.end()
    assert trace.validate() == []
    seen: Counter[str] = Counter()
    for step in trace.step_records:
        assert isinstance(step.kv, BlockDelta)
        seen.update(preempted=len(step.preempted), hits=sum(step.prefix_hits.values()), evicted=len(step.kv.evicted))
        seen.update(row.phase for row in step.scheduled)
        seen["mixed"] += len({row.phase for row in step.scheduled}) > 1
        seen["shared"] += sum(count > 1 for count in step.kv.ref_counts.values())
    assert all(seen[name] for name in "preempted hits evicted prefill decode recompute mixed shared".split()), seen
    tokens = [token for step in trace.step_records for token in step.tokens]
    assert Counter(token.request_id for token in tokens) == {f"r{i}": 40 for i in range(12)}
    for token in tokens:
        assert len(token.top) == 3 and token.logprob is not None
        assert token.top[0][1] == token.logprob  # greedy: none is more likely


@pytest.mark.slow
def test_each_request_gets_as_many_logprobs_as_it_asked_for(run: CoreRun) -> None:
    run.begin()
    for name, number in (("none", None), ("zero", 0), ("two", 2), ("five", 5)):
        run.add(name, [5, 6, 7], 2, temperature=0, logprobs=number)
    tokens = [token for step in run.end().step_records for token in step.tokens]
    assert {(t.request_id, len(t.top), t.logprob is None) for t in tokens} == {
        ("none", 0, True),
        ("zero", 0, False),
        ("two", 2, False),
        ("five", 5, False),
    }


@pytest.mark.slow
def test_an_engine_core_that_is_not_traced_any_more_is_as_it_was(run: CoreRun) -> None:
    run.begin()
    scheduler = run.core.scheduler
    assert "schedule" in vars(scheduler)
    run.end()
    assert "schedule" not in vars(scheduler) and "update_from_output" not in vars(scheduler)


@pytest.mark.slow
def test_random_workloads_keep_the_invariants_on_every_step(run: CoreRun) -> None:
    _random_workloads(run, range(20))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_random_workloads_keep_the_invariants_on_every_step(run: CoreRun) -> None:
    _random_workloads(run, range(20, 220))


def _random_workloads(run: CoreRun, seeds: Sequence[int]) -> None:
    num_preempted = 0
    for seed in seeds:
        drawn = random.Random(seed)
        run.begin()
        prefix, to_come = [drawn.randrange(3, 250) for _ in range(70)], 10
        while to_come or run.core.scheduler.has_requests():
            if to_come and drawn.random() < 0.5:
                own = [drawn.randrange(3, 250) for _ in range(drawn.randint(1, 80))]
                run.add(f"r{to_come}", prefix + own if to_come % 3 == 0 else own, drawn.randint(1, 90))
                to_come -= 1
            if run.alive and drawn.random() < 0.02:
                run.core.abort_requests([drawn.choice(run.alive)])
            run.turn()
        trace = run.end()
        assert trace.validate() == [], seed
        assert run.alive == [], seed
        num_preempted += sum(len(step.preempted) for step in trace.step_records)
    assert num_preempted > len(seeds) // 2
