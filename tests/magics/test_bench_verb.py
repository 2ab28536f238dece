"""%llm bench: which engines are meant, what is shown, what comes back, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from live_kernel import Kernel, Outputs
from verb_support import llm

from llmlab.bench import Bench
from llmlab.errors import RequestError
from llmlab.magics.offers import complete
from llmlab.report import Report

Captured = pytest.CaptureFixture[str]
QUICK = "--workload burst --sweep 2 --repeats 1"


@pytest.mark.usefixtures("ab")
def test_two_engines_come_in_one_table_and_the_measurement_is_the_value(shell: InteractiveShell, capsys: Captured):
    found = llm(shell, f"bench -e a b {QUICK} --slo ttft=30 -o found")
    assert isinstance(found, Bench) and shell.user_ns["found"] is found
    assert [(p.engine, p.load) for p in found.points] == [("a", 2), ("b", 2)]
    out = capsys.readouterr().out
    assert "Burst: a, b" in out and "goodput/s" in out and "a at 2 requests at once" in out


@pytest.mark.usefixtures("ab")
def test_without_names_the_current_engine_is_meant(shell: InteractiveShell):
    found = llm(shell, f"bench {QUICK} -q")
    assert isinstance(found, Bench) and [facts.name for facts in found.engines] == ["b"]


@pytest.mark.usefixtures("ab")
def test_a_report_is_written_with_the_price_and_its_choice_is_shown(
    shell: InteractiveShell, capsys: Captured, tmp_path: Path
):
    path = tmp_path / "choice.md"
    found = llm(shell, f"bench -e a b {QUICK} --price a=1,b=100 --currency EUR --report {path} -o r")
    assert isinstance(found, Report) and shell.user_ns["r"] is found
    written = path.read_text()
    assert "cost per million tokens, EUR" in written and "## Is it the same model?" in written
    assert found.choice.sentence in capsys.readouterr().out
    assert 20 < found.cost["b"] / found.cost["a"] < 500


@pytest.mark.usefixtures("ab")
def test_show_code_prints_the_python_behind_the_line_and_measures_nothing(shell: InteractiveShell, capsys: Captured):
    assert llm(shell, f"bench -e a b {QUICK} --report r.html --price 0.5 --show-code") is None
    call = capsys.readouterr().out.splitlines()[-1]
    assert call == (
        "llmlab.report(llmlab.bench([llmlab.handles()['a'], llmlab.handles()['b']], workload='burst', sweep=[2.0], "
        "repeats=1), path='r.html', price=0.5)"
    )
    assert not Path("r.html").exists()


@pytest.mark.usefixtures("ab")
def test_what_cannot_be_measured_is_one_line_with_what_would_do(shell: InteractiveShell):
    for line, error, message in [
        ("bench -e a nobody", UsageError, "No engine 'nobody'. Loaded: a, b"),
        ("bench --sweep a,b", UsageError, "--sweep takes numbers with commas between them, and got 'a,b'"),
        ("bench --price cheap", UsageError, "--price takes a number"),
        ("bench --workload brust", RequestError, "Did you mean 'burst'"),
        ("bench --slo ttfb=1", RequestError, "Did you mean 'ttft'"),
    ]:
        with pytest.raises(error, match=message):
            llm(shell, line)


@pytest.mark.usefixtures("ab")
def test_tab_offers_engines_after_each_other_workloads_and_flags():
    assert complete(" bench -e a ", False, {}) == (["a", "b"], "")
    assert complete(" bench --workload cl", False, {}) == (["closed_loop"], "cl")
    assert complete(" bench --re", False, {}) == (["--repeats", "--report"], "--re")


@pytest.mark.slow
def test_in_a_front_end_one_place_shows_how_far_it_is_and_then_the_table_and_stop_keeps_what_was_measured(
    kernel: Kernel,
):
    kernel.run("%llm use fake\n%llm slow 0.01")
    seen: list[str] = []

    def stop_in_the_second_repeat(outputs: Outputs) -> bool:
        seen.extend(outputs.pages)
        return bool(seen) and any(f" {n} of 200 requests" in seen[-1] for n in range(8, 16))  # the first is whole

    outputs = kernel.run(
        "%llm bench --workload burst --sweep 2 --repeats 98 -o stopped", meanwhile=stop_in_the_second_repeat
    )
    kernel.run("%llm slow 0")
    assert outputs.error is None and len(outputs.displays) == 1
    assert any("Stop keeps what was measured" in page and "left" in page for page in seen)
    assert "Stopped before the end" in outputs.pages[0] and "<table" in outputs.pages[0]
    assert kernel.run("stopped.is_stopped, 1 <= len(stopped.measurements) < 98").result == {
        "text/plain": "(True, True)"
    }
