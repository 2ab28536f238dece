"""The traces that come with the repository are sound, small, and show what their data sheet says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llmlab
from llmlab.trace import Trace
from llmlab.trace.recorded import recorded_names

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "traces"
FILES = sorted(FOLDER.glob("*.jsonl.gz"))
# worker processes on a CPU, for who wants to see several and has no GPU
ON_CPU = "_cpu_"


def test_there_are_those_of_the_data_sheet():
    sheet = (FOLDER / "README.md").read_text().splitlines()
    rows = [line.split("`")[1] for line in sheet if line.startswith("| `") and ".jsonl.gz" in line]
    assert sorted(rows) == [file.name for file in FILES]
    assert {"burst_of_64", "chunked_prefill", "preemption", "shared_prefix"} <= set(recorded_names())


def test_they_are_found_by_name_and_another_name_says_which_there_are():
    assert recorded_names() == [file.name.partition(".")[0] for file in FILES]
    assert llmlab.recorded("burst_of_64") == Trace.load(FOLDER / "burst_of_64.jsonl.gz")
    with pytest.raises(
        llmlab.TraceError, match=r"Unknown recorded trace 'burst'.*preemption.*Did you mean 'burst_of_64'"
    ):
        llmlab.recorded("burst")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_recorded_trace_is_sound_small_and_says_whether_it_is_from_a_gpu(file: Path):
    trace = Trace.load(file)
    assert trace.validate() == []
    assert file.stat().st_size < 1_000_000
    assert trace.header.engine == "vllm"
    device, dtype = ("CPU", "float32") if ON_CPU in file.name else ("NVIDIA", "bfloat16")
    assert device in (trace.header.device or "") and trace.header.dtype == dtype
    [num_workers] = re.findall(r"_[tp]p(\d+)\.", file.name) or ["1"]
    assert (trace.header.device or "").startswith(f"{num_workers} x ") == (num_workers != "1")
    row = f"| `{file.name}` |"
    [line] = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith(row)]
    assert line.endswith(f"| {len(trace.request_records)} | {len(trace.step_records)} |")


def test_each_shows_what_it_was_recorded_for():
    of = {file.name.partition(".")[0]: Trace.load(file).steps for file in FILES}
    assert of["burst_of_64"].num_waiting.max() >= 32 and of["burst_of_64"].batch_size.max() == 32
    assert of["shared_prefix"].num_prefix_hit_tokens.sum() == 2208  # 23 times 96
    assert of["preemption"].num_preempted.sum() == 15 and of["preemption"].num_recompute_tokens.sum() > 0
    chunks = of["chunked_prefill"].num_prefill_tokens
    # the first prompt fills the budget alone; later ones leave a token each to those that decode beside them
    assert chunks[chunks > 0].to_list()[:8] == [256] * 6 + [253] * 2 and (chunks > 0).sum() == 23
