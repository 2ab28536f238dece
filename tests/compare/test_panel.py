"""The panel without a page: what its form sends is what is run, and what it shows is told."""

from __future__ import annotations

from typing import Any

import ipykernel.ipkernel  # noqa: F401  # it changes who counts the widgets: before the first is made, not after
import pytest
from compare_support import Load

import llmlab
from llmlab.errors import LlmlabError
from llmlab.views.panel import Panel, settings_of
from tests.views.live_support import until


def run(panel: Panel, **message: Any) -> None:
    """As the page does it; until it is over."""
    panel.answer({"t": "run", "prompt": "abcdefgh", "max_tokens": "8", **message})
    until(lambda: not panel.state()["busy"], 60)


def test_a_form_is_run_and_each_engine_gets_a_tab(load: Load):
    load("a", step_s=0.05), load("b", part_at=2, step_s=0.05)
    panel = llmlab.panel()
    assert [(e["name"], e["chosen"]) for e in panel.state()["engines"]] == [("a", True), ("b", True)]
    run(panel, engines=["b", "a"], temperature="0", together=True)
    assert panel.comparison is not None
    assert (panel.comparison.names, panel.comparison.together) == (["b", "a"], True)
    assert panel.comparison["a"][0].num_output_tokens == 8
    titles = [tab["title"] for tab in panel.state()["tabs"]]
    assert titles == ["Answers", "KV cache and timeline: b", "KV cache and timeline: a"]
    assert "◆ X" in panel.bundle()["text/html"]
    panel.left()
    assert panel.state()["tabs"] == []


def test_what_cannot_be_run_is_told_and_the_form_stays_usable(load: Load):
    load("a"), load("b")
    panel = llmlab.panel(["a"])
    run(panel, engines=["a"])
    assert panel.state()["error"].startswith("A comparison has 2 to 16 columns")
    run(panel, engines=["a", "b"], max_tokens="many")
    assert panel.state()["error"].startswith("max_tokens is 'many'; it must be a number")
    run(panel, engines=["a", "b"])
    assert panel.state()["error"] == ""
    panel.left()


def test_stop_ends_what_runs(load: Load):
    load("a", step_s=0.02), load("b", step_s=0.02)
    panel = llmlab.panel()
    panel.answer({"t": "run", "prompt": "abc", "engines": ["a", "b"], "max_tokens": "200"})
    until(lambda: panel.comparison is not None and panel.comparison["a"], 30)
    panel.answer({"t": "stop"})
    until(lambda: not panel.state()["busy"], 30)
    assert panel.comparison["a"][0].finish_reason == "interrupted"
    panel.left()


def test_an_empty_field_is_not_given_and_no_number_is_refused():
    assert settings_of({"temperature": "", "seed": "3", "system": "Be brief."}) == {"seed": 3, "system": "Be brief."}
    with pytest.raises(LlmlabError, match="top_p is 'x'"):
        settings_of({"top_p": "x"})
