"""%llm trace replay FILE --what-if: changes by short names, both pictures, the changed trace as value."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import llmlab
from llmlab.shipped import shipped

FILE = shipped("traces/burst_of_64.jsonl.gz")
Captured = pytest.CaptureFixture[str]


def replay(shell: InteractiveShell, changes: str) -> object:
    return shell.run_line_magic("llm", f"trace replay {FILE} --what-if {changes}")


def test_the_changed_run_is_the_value_and_both_are_shown(shell: InteractiveShell, capsys: Captured):
    trace = replay(shell, "policy=static block=32 -o changed")
    assert isinstance(trace, llmlab.Trace) and shell.user_ns["changed"] is trace
    assert (trace.header.block_size, trace.header.source) == (32, "simulated")
    told = capsys.readouterr().out
    assert "the recorded engine gave 1453 (measured)" in told
    assert "throughput" in told and "after: simulated as vllm 0.26.0" in told
    assert llmlab.current() is None  # nothing was loaded


def test_the_call_behind_it_can_be_printed(shell: InteractiveShell, capsys: Captured):
    assert replay(shell, "block=32 budget=64 --show-code") is None
    assert capsys.readouterr().out == (
        f"import llmlab\nllmlab.Trace.load({str(FILE)!r}).replay(block_size=32, token_budget=64)\n"
    )


def test_wrong_changes_are_one_line(shell: InteractiveShell):
    with pytest.raises(llmlab.EngineError, match="Did you mean 'policy'"):
        replay(shell, "polcy=static")
    with pytest.raises(UsageError, match="leave --speed and --as out"):
        replay(shell, "policy=static --speed 2")
