"""What-if replays of recorded traces: the original comes out again, and a change changes what it should."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmlab
from llmlab import metrics
from llmlab.engines.cost_model import LinearCost
from llmlab.errors import EngineError, TraceError
from llmlab.models import ModelConfig
from llmlab.trace import Header, Request, Trace
from llmlab.trace.example import two_requests
from llmlab.views.plots.look import about

FLAT = LinearCost(0.01, 0.0, 0.0)


@pytest.fixture(scope="module")
def burst() -> Trace:
    return llmlab.recorded("burst_of_64")


@pytest.fixture(scope="module")
def preemption() -> Trace:
    return llmlab.recorded("preemption")


@pytest.mark.parametrize(
    ("name", "num_steps", "num_found"),
    [("burst_of_64", 98, 1008), ("shared_prefix", 120, 2208), ("chunked_prefill", 62, 176)],
)
def test_a_replay_without_changes_takes_the_steps_and_finds_the_prefixes_that_vllm_did(
    name: str, num_steps: int, num_found: int
):
    """One step more at most: where a prefix is found, our scheduler leaves the rest of that step's budget unused."""
    recorded = llmlab.recorded(name)
    again = recorded.replay()
    assert again.validate() == []
    assert len(recorded.step_records) == num_steps
    assert num_steps <= len(again.step_records) <= num_steps + 1
    for trace in (recorded, again):
        assert trace.steps.num_prefix_hit_tokens.sum() == num_found
    assert metrics.throughput_tps(again) == pytest.approx(metrics.throughput_tps(recorded), rel=0.02)


def test_requests_prompts_and_answers_are_those_of_the_trace(burst: Trace):
    again = burst.replay(policy="static")
    first_s = min(r.arrival_s for r in burst.request_records)
    for old, new in zip(burst.request_records, again.request_records, strict=True):
        assert (old.request_id, old.prompt_token_ids, old.arrival_s - first_s) == (
            new.request_id, new.prompt_token_ids, new.arrival_s,
        )  # fmt: skip

    def texts(trace: Trace) -> dict[str, str]:
        return trace.tokens.groupby("request_id").text.sum().to_dict()

    assert texts(again) == texts(burst)
    assert again.requests.finish_reason.tolist() == burst.requests.finish_reason.tolist()


def test_all_that_a_simulation_reports_says_so(burst: Trace):
    again = burst.replay(cost=FLAT)
    assert (again.header.engine, again.header.source) == ("simulated", "simulated")
    assert about(again.header).startswith("simulated prices · smollm2-135m")
    assert about(again.header).endswith("simulated")


def test_static_batches_take_more_steps_and_a_larger_cache_fewer_preemptions(burst: Trace, preemption: Trace):
    assert len(burst.replay(policy="static", cost=FLAT).step_records) > 2 * 98
    assert metrics.num_preemptions(preemption.replay(cost=FLAT)) == 13  # vLLM: 15
    assert metrics.num_preemptions(preemption.replay(cost=FLAT, kv_tokens=4096)) == 0


def test_larger_blocks_share_less_of_a_system_prompt():
    trace = llmlab.recorded("shared_prefix")

    def found(**changes: object) -> int:
        return trace.replay(cost=FLAT, **changes).steps.num_prefix_hit_tokens.sum()

    recorded = trace.steps.num_prefix_hit_tokens.sum()
    assert found(block_size=4) > found() == recorded > found(block_size=64) > found(block_size=128) == 0
    assert found(prefix_caching=False) == 0


def test_contiguous_memory_holds_as_many_as_reservations_fit(burst: Trace):
    reserved = burst.replay(cost=FLAT, kv="contiguous", max_model_len=1024)
    assert reserved.validate() == []
    assert max(step.num_running for step in reserved.step_records) == 8192 // 1024


def test_workers_split_the_run_and_gpus_split_the_layers(burst: Trace):
    for changes in ({"data_parallel": 2}, {"prefill_workers": 1, "decode_workers": 1}):
        trace = burst.replay(cost=FLAT, **changes)
        assert trace.validate() == []
        assert {step.extra["worker"] for step in trace.step_records} == {0, 1}
    split = burst.replay(cost=FLAT, tensor_parallel=2)
    assert split.header.num_blocks == 2 * burst.header.num_blocks
    # 60 additions of at least 10 us
    assert split.step_records[0].t_s > 0.01 + 60 * 10e-6


def test_a_machine_prices_a_trace_that_tells_no_times():
    slow, fast = (
        two_requests().replay(machine=name, model="smollm2-135m", max_num_seqs=4) for name in ("laptop", "h200")
    )
    assert slow.validate() == fast.validate() == []
    assert slow.step_records[-1].t_s > fast.step_records[-1].t_s
    assert fast.header.device == "h200: 989 TFLOP/s, 4800 GB/s"


def test_a_shape_stands_for_a_model_that_is_not_here(burst: Trace):
    shape = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, 8192)
    one, two = (burst.replay(machine="h200", model=shape, tensor_parallel=n) for n in (1, 2))
    assert (one.header.model, two.header.device) == ("8B-shaped", "2 x h200: 989 TFLOP/s, 4800 GB/s")
    # 2 x 32 layers x 8 KV heads x 128 numbers of 2 bytes, whatever the trace was recorded with
    assert one.header.kv_cache_bytes == 8192 * 131_072
    # 16 GB at 60 % of 4.8 TB/s in one step, and beside that what nobody can share
    assert 5.5e-3 < one.step_records[50].forward_s - 3e-3 < 6e-3
    assert one.step_records[50].forward_s > two.step_records[50].forward_s > 3e-3 + 2.75e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polcy": "static"}, "Unknown change 'polcy'.*Did you mean 'policy'"),
        ({"engine": "vllm"}, "What-if replays run on engine='simulated', not 'vllm'"),
        ({"machine": "h20"}, "Unknown machine 'h20'.*Did you mean 'h200'"),
        ({"data_parallel": 0}, "data_parallel is 0; it must be 1 or more"),
        ({"prefill_workers": 1}, "Give decode_workers=1 as well"),
        ({"data_parallel": 2, "prefill_workers": 1, "decode_workers": 1}, "give one of the two"),
    ],
)
def test_a_change_that_cannot_be_says_so(burst: Trace, changes: dict, message: str):
    with pytest.raises(EngineError, match=message):
        burst.replay(**{"cost": FLAT, **changes})


def test_a_trace_without_tokens_has_nothing_to_replay():
    asked = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1,))
    with pytest.raises(TraceError, match="No token came out"):
        Trace(Header(engine="vllm"), (asked,)).replay(cost=FLAT)


def test_a_trace_replays_where_no_engine_was_imported_before():
    code = (
        "from llmlab.trace.example import two_requests; from llmlab.trace import Trace; import sys;"
        "assert 'llmlab.engines' not in sys.modules;"
        "print(two_requests().replay(machine='laptop', model='smollm2-135m'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Trace(simulated, ")
