"""%%llm compare: which columns are meant, what is shown, what comes back, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_support import load_engine
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from llmlab.compare import Comparison
from llmlab.magics.offers import complete

Captured = pytest.CaptureFixture[str]


def compare(shell: InteractiveShell, line: str, cell: str = "abcdefgh") -> Comparison:
    found = shell.run_cell_magic("llm", f"compare {line}", cell)
    assert isinstance(found, Comparison)
    return found


@pytest.fixture
def ab(shell: InteractiveShell) -> None:
    load_engine("a")
    load_engine("b", part_at=2)


@pytest.mark.usefixtures("ab")
def test_all_loaded_engines_are_meant_and_the_comparison_is_the_value(shell: InteractiveShell, capsys: Captured):
    found = compare(shell, "-n 8 -o found")
    assert shell.user_ns["found"] is found
    assert found.names == ["a", "b"]
    shown = capsys.readouterr().out
    assert "abXdefgh" in shown and "a and b part at token 2: a says 'c', b says 'X'." in shown


@pytest.mark.usefixtures("ab")
def test_several_names_follow_e_and_flags_go_on_after_them(shell: InteractiveShell):
    load_engine("c")
    found = compare(shell, "-e c a -n 3 -q")
    assert found.names == ["c", "a"]
    assert found["c"][0].num_output_tokens == 3


@pytest.mark.usefixtures("ab")
def test_a_grid_makes_columns_and_three_dashes_part_prompts(shell: InteractiveShell):
    found = compare(shell, "-e a -q -n 2 --grid temperature=0,0.7 seed=1,2 --at-once 2", "one {n}\n---\ntwo")
    assert found.names[-1] == "temperature 0.7, seed 2"
    assert (found.prompts, found.at_once) == (["one {n}", "two"], 2)


@pytest.mark.usefixtures("ab")
def test_names_in_braces_are_filled_in(shell: InteractiveShell):
    shell.user_ns["n"] = 7
    assert compare(shell, "-q -n 2", "one {n}").prompts == ["one 7"]


@pytest.mark.usefixtures("ab")
def test_the_call_is_printed_and_nothing_is_asked(shell: InteractiveShell, capsys: Captured):
    shell.run_cell_magic("llm", "compare -e a b -n 4 --together --show-code", "abc")
    printed = capsys.readouterr().out
    assert "llmlab.compare('abc', engines=['a', 'b'], together=True" in printed
    assert "wait" not in printed


@pytest.mark.usefixtures("ab")
def test_the_panel_is_a_flag_away(shell: InteractiveShell, capsys: Captured):
    shell.run_line_magic("llm", "compare -e a b --panel --show-code")
    assert "llmlab.panel(engines=['a', 'b'])" in capsys.readouterr().out


@pytest.mark.usefixtures("ab")
def test_prompts_come_from_a_file_or_a_variable(shell: InteractiveShell, tmp_path: Path, capsys: Captured):
    path = tmp_path / "set.jsonl"
    path.write_text('"one"\n{broken\n' + json.dumps({"prompt": "two"}) + "\n")
    found = shell.run_line_magic("llm", f"compare -n 2 --file {path}")
    assert isinstance(found, Comparison)
    assert found.prompts == ["one", "two"]
    assert "1 line was left out of set.jsonl: line 2: no JSON" in capsys.readouterr().out
    shell.user_ns["mine"] = ["three", "four"]
    found = shell.run_line_magic("llm", "compare -n 2 -q --var mine --limit 1")
    assert isinstance(found, Comparison)
    assert found.prompts == ["three"]


@pytest.mark.usefixtures("ab")
@pytest.mark.parametrize(
    ("line", "cell", "says"),
    [
        ("-e a nobody", "x", "No engine 'nobody'. Loaded: a, b."),
        ("-n 3", "   ", "No prompt: write it below"),
        ("--file questions.txt", " ", "come from a .jsonl file"),
        ("-e", "x", "-e needs a value: -e A B ..."),
        ("--togther", "x", "Did you mean --together?"),
    ],
)
def test_wrong_syntax_is_one_line(shell: InteractiveShell, line: str, cell: str, says: str):
    with pytest.raises(UsageError) as caught:
        shell.run_cell_magic("llm", f"compare {line}", cell)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("ab")
def test_a_time_limit_keeps_what_came(shell: InteractiveShell):
    load_engine("slow", step_s=0.05)
    found = compare(shell, "-e slow a --timeout 0.5 -n 100 -q -o kept")
    assert shell.user_ns["kept"] is found
    assert found["slow"][0].finish_reason == "interrupted"
    assert found["slow"][0].num_output_tokens > 0


@pytest.mark.usefixtures("ab")
def test_tab_offers_flags_and_names_after_each_name(shell: InteractiveShell):
    assert "compare" in (complete(" comp", True, {})[0] or [])
    assert "--together" in (complete(" compare --to", True, {})[0] or [])
    assert complete(" compare -e a ", True, {})[0] == ["a", "b"]
