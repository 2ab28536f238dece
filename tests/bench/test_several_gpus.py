"""Benchmarks and recordings on several GPUs, as far as they go without one: what is run, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_vllm, record_traces
from benchmarks.harness import RESULTS, Series

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("gpus", "bound"), [(2, [("8B-shaped bfloat16, 256 requests: 2 GPUs against one", 2.5, 1.55)]), (4, [])]
)
def test_three_peers_share_the_gpus_and_gains_are_medians_of_neighbours(
    gpus: int, bound: list, monkeypatch: pytest.MonkeyPatch
):
    asked = {}
    rates = {"llmlab on one GPU": [10, 10, 20], f"llmlab on {gpus} GPUs": [30, 20, 50]}
    rates[f"vLLM as shipped on {gpus} GPUs"] = [30] * 3

    def in_turns(script, scale, peers, rounds):
        asked.update({peer: json.loads(words[words.index("--options") + 1]) for peer, words in peers.items()})
        return {(peer, n): Series(peer, "tok/s", rates[peer]) for peer in peers for n in scale.batch_sizes}

    monkeypatch.setattr(bench_vllm, "in_turns", in_turns)
    series, bounds = bench_vllm.tensor_parallel("8b", gpus, rounds=3)
    assert list(asked) == list(rates)
    assert [options.get("tensor_parallel_size") for options in asked.values()] == [None, gpus, gpus]
    assert all(options["load_format"] == "dummy" for options in asked.values())
    # of one GPU's memory, on which all three are
    assert sum(options["gpu_memory_utilization"] for options in asked.values()) <= 0.9
    gains = [one for one in series if one.name.endswith(f"{gpus} GPUs against one")]
    assert [(gain.unit, gain.median) for gain in gains] == [("x", 2.5)] * 3
    against_vllm = [(f"{n} requests, {gpus} GPUs: llmlab against vLLM as shipped", 1.0, 0.99) for n in (1, 32, 256)]
    assert [(one.claim, one.value, one.limit) for one in bounds] == [*bound, *against_vllm]


@pytest.mark.parametrize(
    ("kind", "on_cpu", "name", "sizes"),
    [
        ("tp4", False, "burst_of_64_tp4", {"tensor_parallel_size": 4}),
        ("tp1", True, "burst_of_16_cpu_tp1", {"tensor_parallel_size": 1}),
        ("pp2", True, "burst_of_16_cpu_pp2", {"pipeline_parallel_size": 2}),
    ],
)
def test_what_workers_record_says_how_they_share_and_where(
    kind: str, on_cpu: bool, name: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(record_traces, "is_cpu_build", lambda: on_cpu)
    found, workload = record_traces.on_workers(kind)
    assert found == name
    assert sizes.items() <= workload.options.items()
    assert workload.options["hf_overrides"]["num_attention_heads"] % next(iter(sizes.values())) == 0
    assert "random weights" in (workload.model or "") and workload.sampling["ignore_eos"]
    assert "kv_tokens" not in workload.load  # vLLM finds out how many blocks there is room for
    with pytest.raises(SystemExit, match="Unknown workers 'dp2'"):
        record_traces.on_workers("dp2")


def test_the_figures_beside_the_traces_are_those_of_the_results():
    copies = sorted((ROOT / "datasets" / "traces").glob("*.json"))
    assert [copy.name for copy in copies] == sorted(path.name for path in RESULTS.glob("vllm_tp*_8b.json"))
    assert all(copy.read_bytes() == (RESULTS / copy.name).read_bytes() for copy in copies)
