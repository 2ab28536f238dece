"""%llm PROMPT and %%llm, on an engine that repeats the last letters of its prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import llm

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.errors import RequestError

Captured = pytest.CaptureFixture[str]


def test_the_answer_is_printed_and_is_the_value(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    result = llm(shell, "Why? -n 8")
    assert str(result) == f"{result}" == fake.generate("Why?", max_tokens=8).text
    answer, footer = capsys.readouterr().out.splitlines()
    assert answer == result.text
    assert footer == result.footer
    assert "fake 1 · letters · seed 0" in footer
    assert f"{result.num_prompt_tokens}+8 tokens" in footer


def test_a_cell_is_a_prompt_with_the_names_of_the_notebook_filled_in(shell: InteractiveShell, fake: EngineHandle):
    shell.push({"fruit": "kiwi"})
    result = llm(shell, "-n 4 -o r", 'Sell {fruit} as {"fruit": 1};\n')
    assert result.prompt_text == '<user>Sell kiwi as {"fruit": 1};'
    assert shell.user_ns["r"] is result


def test_no_expand_sends_the_braces(shell: InteractiveShell, fake: EngineHandle):
    shell.push({"x": 1})
    assert llm(shell, "-n 1 --no-expand {x}").prompt_text == "<user>{x}"


def test_names_of_the_function_around_a_line_are_filled_in(shell: InteractiveShell, fake: EngineHandle):
    shell.run_cell("def f(word):\n    return get_ipython().run_line_magic('llm', '-q -n 1 {word}')\nr = f('inside')")
    assert shell.user_ns["r"].prompt_text == "<user>inside"


def test_strict_refuses_before_anything_is_sent(shell: InteractiveShell, fake: EngineHandle):
    with pytest.raises(UsageError, match="no variable 'nothing'"):
        llm(shell, "--strict {nothing}")
    assert fake.last is None


def test_every_flag_reaches_the_engine(shell: InteractiveShell, fake: EngineHandle):
    shell.push({"who": "Be {x}."})
    result = llm(shell, r"Hi -q -s @who -t 0.5 -p 0.9 -k 5 --min-p 0.1 -n 7 --seed 3 --stop '\n' --logprobs 2")
    assert result.prompt_text == "<system>Be {x}.<user>Hi"
    assert dict(result.sampling) == {
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "max_tokens": 7, "seed": 3, "stop": ["\n"],
        "logprobs": 2,
    }  # fmt: skip


def test_raw_prompt_sends_the_text_without_the_template(shell: InteractiveShell, fake: EngineHandle):
    assert llm(shell, "-q -n 1 --raw-prompt Once upon").prompt_text == "Once upon"


def test_schema_takes_a_variable(shell: InteractiveShell, fake: EngineHandle):
    shell.push({"shape": {"type": "object"}})
    assert llm(shell, "-q -n 1 --schema shape Hi").sampling["json_schema"] == {"type": "object"}
    with pytest.raises(UsageError, match=r"No variable 'shap' in this notebook\. Did you mean shape\?"):
        llm(shell, "-q -n 1 --schema shap Hi")


def test_show_prompt_prints_what_was_sent(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    result = llm(shell, "Hi -n 2 --show-prompt")
    text, ids, *_ = capsys.readouterr().out.splitlines()
    assert text == "<user>Hi"
    assert ids == f"8 token ids: {list(result.prompt_token_ids)}"


def test_quiet_shows_nothing(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    shell.run_line_magic("llm", "-q -n 4 -o r Hi")
    assert capsys.readouterr().out == ""
    assert shell.user_ns["r"].num_output_tokens == 4


def test_the_value_is_kept_and_not_shown_twice(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    shell.run_cell("%llm Hi -n 5", store_history=True)
    result = shell.user_ns["_"]
    assert shell.user_ns["Out"] == {1: result}
    assert capsys.readouterr().out.count(result.text) == 1
    shell.run_cell("_", store_history=True)
    assert result.text in capsys.readouterr().out


def test_only_the_next_display_of_that_value_is_silent(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    shell.run_cell("a = %llm One -n 5 -q\nb = %llm Two -n 5 -q\ndisplay(a)")
    assert shell.user_ns["a"].text in capsys.readouterr().out
    shell.run_cell("display(b)")
    assert shell.user_ns["b"].text in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["%%llm -n 3 -q\nint main() { return 0; };", "%llm -n 3 -q Stop here;"])
def test_a_prompt_that_ends_in_a_semicolon_keeps_its_answer(shell: InteractiveShell, fake: EngineHandle, cell: str):
    shell.run_cell(cell, store_history=True)
    assert shell.user_ns["_"].prompt_text.endswith(";")


def test_a_timeout_keeps_what_came(shell: InteractiveShell, fake: EngineHandle):
    fake.slow(0.05)
    result = llm(shell, "Hi -q -o r -n 200 --timeout 0.4")
    assert result.finish_reason == "interrupted"
    assert 0 < result.num_output_tokens < 200
    assert shell.user_ns["r"] is result
    fake.slow(0)
    assert llm(shell, "Hi -q -n 5").finish_reason == "length"


def test_a_refused_prompt_raises_without_our_own_lines(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    with pytest.raises(RequestError):
        llm(shell, "", "x" * 400)
    shell.run_cell("%llm " + "x" * 400)
    shown = capsys.readouterr().out
    assert "max_model_len is 256" in shown
    assert "line" not in shown
    assert llm(shell, "Hi -q -n 5").finish_reason == "length"


def test_a_failed_generation_fails_its_cell(shell: InteractiveShell, fake: EngineHandle):
    assert isinstance(shell.run_cell("%llm " + "x" * 400).error_in_exec, RequestError)


def test_a_paused_engine_is_named_instead_of_waited_for(shell: InteractiveShell, fake: EngineHandle):
    fake.pause()
    with pytest.raises(UsageError, match=r"fake is paused: no answer would come\. `%llm resume`"):
        llm(shell, "Hi")


def test_chat_goes_on_and_a_cell_that_runs_again_replaces_its_turn(shell: InteractiveShell, fake: EngineHandle):
    first = llm(shell, "-c -q -n 3 One")
    shell.execution_count += 1
    second = llm(shell, "-c -q -n 3 Two")
    assert second.prompt_text == f"<user>One<assistant>{first}<user>Two"
    shell.execution_count -= 1
    again = llm(shell, "-c -q -n 3 Uno")
    assert again.prompt_text == "<user>Uno"
    shell.execution_count += 2
    assert llm(shell, "-c -q -n 3 Three").prompt_text == (
        f"<user>Uno<assistant>{again}<user>Two<assistant>{second}<user>Three"
    )


def test_without_chat_nothing_is_remembered_and_reset_forgets(shell: InteractiveShell, fake: EngineHandle):
    llm(shell, "-c -q -n 3 One")
    assert llm(shell, "-q -n 3 Two").prompt_text == "<user>Two"
    shell.execution_count += 1
    assert llm(shell, "-c -q -n 3 --reset Three").prompt_text == "<user>Three"


def test_defaults_come_from_config_then_the_environment(
    shell: InteractiveShell, fake: EngineHandle, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.setenv("LLMLAB_MAX_TOKENS", "5")
    monkeypatch.setenv("LLMLAB_TEMPERATURE", "0.5")
    shell.run_line_magic("config", "LLMLab.max_tokens = 3")
    sampling = llm(shell, "-q Hi").sampling
    assert (sampling["max_tokens"], sampling["temperature"]) == (3, 0.5)
    assert llm(shell, "-q Hi -n 2").num_output_tokens == 2
    capsys.readouterr()
    llm(shell, "")
    status = capsys.readouterr().out
    assert re.search(r"max_tokens +3 \(%config\)", status)
    assert re.search(r"temperature +0.5 \(LLMLAB_TEMPERATURE\)", status)
    assert re.search(r"format +md \(built-in\)", status)


def test_a_profile_may_set_defaults(shell: InteractiveShell):
    shell.config.LLMLab.max_tokens = 9
    shell.run_line_magic("reload_ext", "llmlab")
    lab = shell.find_line_magic("llm").__self__
    assert (lab.default("max_tokens"), lab.origin("max_tokens")) == (9, "%config")
    assert (lab.default("default_model"), lab.origin("default_model")) == ("smollm2-135m", "built-in")


def test_an_environment_variable_of_the_wrong_kind_is_named(
    shell: InteractiveShell, fake: EngineHandle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMLAB_MAX_TOKENS", "many")
    with pytest.raises(UsageError, match="LLMLAB_MAX_TOKENS is 'many'"):
        llm(shell, "Hi")


@pytest.mark.parametrize(
    "line",
    ["Why? -n 4 -o r", "Why? -n 4 -c", "Why? -n 4 -s 'Be brief' --stop x --seed 2", "-n 4 --raw-prompt -- it's -n"],
)
def test_show_code_prints_a_call_that_gives_the_same_answer(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured, line: str
):
    assert llm(shell, f"--show-code {line}") is None
    code = capsys.readouterr().out
    assert fake.last is None
    exec(compile(code, "twin", "exec"), names := {})
    by_code = fake.last
    assert by_code.text == str(llm(shell, f"-q {line}"))
    assert ("r" in names) == ("-o r" in line)


def test_a_cell_may_name_the_engine(shell: InteractiveShell, fake: EngineHandle):
    other = llmlab.load("letters", engine="fake_engine:FakeEngine", name="other", isolation="inline")
    llm(shell, "fake -q -n 2", "Hi")
    assert other.last is None
    with pytest.raises(UsageError, match=r"No engine 'fke'\. Loaded: fake, other\. Did you mean fake\?"):
        llm(shell, "fke -q", "Hi")


def test_a_prompt_without_an_engine_loads_the_default_one(shell: InteractiveShell, capsys: Captured):
    shell.run_line_magic("config", "LLMLab.default_model = 'letters'")
    shell.run_line_magic("config", "LLMLab.default_engine = 'fake_engine:FakeEngine'")
    llm(shell, "Hi -n 3")
    assert capsys.readouterr().out.startswith("No engine is loaded: loading letters (")
    assert [handle.model for handle in llmlab.handles().values()] == ["letters"]


def test_wrong_syntax_sends_nothing(shell: InteractiveShell, fake: EngineHandle, tmp_path: Path):
    with pytest.raises(UsageError):
        llm(shell, "Hi --max-token 3")
    assert fake.last is None
