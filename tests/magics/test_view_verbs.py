"""%llm kv, timeline, tokens: views of a run, and how a text is cut into tokens."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import llm

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.magics.offers import complete

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("verb", "title"), [("kv", "KV cache"), ("timeline", "Batching timeline")])
def test_a_view_of_the_last_run_or_of_one_in_a_variable(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured, verb: str, title: str
):
    first = fake.batch(["one"], max_tokens=3)
    first.wait()
    fake.batch(["two", "three"], max_tokens=3).wait()
    shell.user_ns["first"] = first
    capsys.readouterr()
    view = llm(shell, verb)
    assert view.title == title
    assert [step["n"] for step in view.story.steps] == [3, 4, 5]
    assert capsys.readouterr().out.startswith(f"{title} · fake 1 · step 5 of 5\n")
    assert [step["n"] for step in llm(shell, f"{verb} first").story.steps] == [0, 1, 2]


def test_the_call_behind_a_view_can_be_printed(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    shell.user_ns["run"] = fake.batch(["one"], max_tokens=3)
    capsys.readouterr()
    assert llm(shell, "kv run --show-code") is None
    llm(shell, "timeline --show-code")
    llm(shell, "tokens 'some text' --show-code")
    assert capsys.readouterr().out.splitlines() == [
        "import llmlab", "llmlab.kv_cache(run)", "import llmlab", "llmlab.timeline(llmlab.current())", "import llmlab",
        "llmlab.current().tokenize('some text')",
    ]  # fmt: skip


def test_a_text_as_tokens_with_their_bytes(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    assert llm(shell, "tokens a é") == [97, 32, 233]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 tokens in fake"
    assert [line.split() for line in lines[2:5]] == [
        ["0", "97", "a", "61"],
        ["1", "32", "·", "20"],
        ["2", "233", "é", "c3", "a9"],
    ]


def test_a_result_in_a_variable_is_shown_token_by_token(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    shell.user_ns["r"] = fake.generate("Hello", max_tokens=3)
    view = llm(shell, "tokens r")
    assert [token["text"] for token in view.data["tokens"]] == [token.text for token in shell.user_ns["r"].tokens]
    assert repr(view) == repr(shell.user_ns["r"])


def test_what_cannot_be_shown_is_said_in_one_line(shell: InteractiveShell, fake: EngineHandle):
    shell.user_ns["x"] = 7
    with pytest.raises(llmlab.LlmlabError, match="Nothing to draw in an object of type int"):
        llm(shell, "kv x")
    with pytest.raises(UsageError, match="No variable 'nope'"):
        llm(shell, "timeline nope")
    with pytest.raises(UsageError, match="tokens: type a text"):
        llm(shell, "tokens")


def test_tab_offers_the_verbs_and_the_variables():
    assert complete(" ti", in_cell=False, namespace={})[0] == ["timeline"]
    assert complete(" kv r", in_cell=False, namespace={"run": 1, "other": 2})[0] == ["run"]
