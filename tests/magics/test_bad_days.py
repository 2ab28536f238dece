"""An engine that dies takes neither the notebook nor the words that had come."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from IPython.core.interactiveshell import InteractiveShell
from live_kernel import FAKE

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.errors import EngineDied

pytestmark = pytest.mark.slow


def kill_later(handle: EngineHandle) -> None:
    """When it has made some tokens."""

    def kill() -> None:
        while sum(len(step.tokens) for step in handle.trace.step_records) < 12:
            time.sleep(0.02)
        os.kill(handle.pid, signal.SIGKILL)

    threading.Thread(target=kill).start()


def test_a_killed_engine_leaves_the_partial_answer_and_the_line_to_load_it_again(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
):
    handle = llmlab.load("letters", engine=FAKE, name="mortal")
    handle.slow(0.02)
    kill_later(handle)
    with pytest.raises(EngineDied, match="SIGKILL"):
        shell.run_line_magic("llm", "Hello -n 200 -o r")
    partial = shell.user_ns["r"]
    assert partial.finish_reason == "error"
    assert 0 < partial.num_output_tokens < 200
    assert partial.text in capsys.readouterr().out
    shell.run_cell("%llm Hello")
    shown = capsys.readouterr().out
    assert "`%llm load letters" in shown
    assert "llmlab/magics" not in shown
    shell.run_line_magic("llm", "ps")
    assert "ended" in capsys.readouterr().out
    again = shell.run_line_magic("llm", f"load letters -e {FAKE} --as mortal")
    assert shell.run_line_magic("llm", "-q -n 3 Hi").num_output_tokens == 3
    assert again.trace.validate() == []


def test_a_killed_engine_ends_its_batch_with_what_had_come(shell: InteractiveShell):
    handle = llmlab.load("letters", engine=FAKE, name="mortal")
    handle.slow(0.02)
    kill_later(handle)
    with pytest.raises(EngineDied):
        shell.run_cell_magic("llm", "batch -n 200 -o run", "One\nTwo\nThree")
    assert [result.finish_reason for result in shell.user_ns["run"].results] == ["error"] * 3
    assert all(0 < result.num_output_tokens < 200 for result in shell.user_ns["run"].results)
