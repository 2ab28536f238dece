"""%llm parity and %llm load -e both: which engines are meant, what is shown, what comes back."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import PARITY, llm

import llmlab
from llmlab.engines import both as both_module
from llmlab.engines.both import Both
from llmlab.errors import EngineError
from llmlab.parity import Manifest

Captured = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("ab")
def test_without_names_the_two_loaded_ones_are_meant(shell: InteractiveShell, capsys: Captured):
    found = llm(shell, "parity -n 4 -o found")
    assert isinstance(found, Manifest)
    assert (found.a, found.b) == ("a", "b")
    assert shell.user_ns["found"] is found
    assert "a and b. The same model" in capsys.readouterr().out


@pytest.mark.usefixtures("ab")
def test_names_choose_and_say_the_order(shell: InteractiveShell):
    found = llm(shell, "parity b a -n 4 -q")
    assert isinstance(found, Manifest)
    assert (found.a, found.b) == ("b", "a")


@pytest.mark.usefixtures("ab")
def test_the_call_is_printed(shell: InteractiveShell, capsys: Captured):
    llm(shell, "parity a b -n 4 --show-code")
    assert "llmlab.parity(llmlab.handles()['a'], llmlab.handles()['b'], max_tokens=4)" in capsys.readouterr().out


@pytest.mark.usefixtures("ab")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("parity a", r"names of two loaded engines: `%llm parity A B`\. Loaded: a, b\."),
        ("parity a a", "'a' was given twice"),
        ("parity a c", "No engine 'c'"),
    ],
)
def test_a_wrong_name_is_one_line(shell: InteractiveShell, line: str, says: str):
    with pytest.raises(UsageError, match=says):
        llm(shell, line)


def test_with_nothing_loaded_it_says_what_loads_two(shell: InteractiveShell):
    with pytest.raises(UsageError, match=r"Loaded: none\. `%llm load smollm2-135m -e both`"):
        llm(shell, "parity")


def test_where_vllm_does_not_run_two_quants_are_offered(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(both_module, "missing", lambda engine: f"The {engine} engine runs on Linux.")
    with pytest.raises(EngineError) as caught:
        llm(shell, "load smollm2-135m -e both")
    assert str(caught.value) == (
        "The vllm engine runs on Linux. Two quants on llama.cpp can be compared as well: "
        "`%llm load smollm2-135m -e llamacpp -q F32 --as f32`, `%llm load smollm2-135m -e llamacpp -q Q8_0 --as q8`, "
        "then `%llm parity f32 q8`."
    )


def test_both_are_shown_compared_and_replaced_when_the_cell_runs_again(
    shell: InteractiveShell, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    def two(model: str, **options: object) -> Both:
        return Both(*(llmlab.load(model, PARITY, isolation="inline") for _ in range(2)))

    monkeypatch.setattr("llmlab.engines.loading.load_both", two)
    first = llm(shell, "load m -e both")
    shown = capsys.readouterr().out
    assert [shown.count(text) for text in ("m is loaded", "m-2 is loaded", "The same model")] == [1, 1, 1]
    shell.execution_count += 1
    other = llm(shell, "load m -e both")
    shell.execution_count -= 1
    again = llm(shell, "load m -e both")
    assert isinstance(first, Both) and isinstance(other, Both) and isinstance(again, Both)
    assert [handle.alive for handle in (*first, *other, *again)] == [False, False, True, True, True, True]
    assert [handle.name for handle in again] == ["m", "m-2"]
