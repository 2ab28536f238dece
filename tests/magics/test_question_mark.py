"""A prompt may end in a question mark; IPython's help on a name still works."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from llmlab.magics import question_mark


@pytest.fixture
def shell() -> InteractiveShell:
    shell = InteractiveShell()
    question_mark.install(shell)
    return shell


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("%llm Why is it?", "get_ipython().run_line_magic('llm', 'Why is it?')"),
        ("%llmlab Why??", "get_ipython().run_line_magic('llmlab', 'Why??')"),
        ("x = %llm Why?", "x = get_ipython().run_line_magic('llm', 'Why?')"),
        ("d['a'].b = %llm Why?", "d['a'].b = get_ipython().run_line_magic('llm', 'Why?')"),
        ("if x:\n    %llm What's (this?\n    y = 2", None),
        ("a = 1\n%llm Why?\nb = %llm How?\nc = 3", None),
    ],
)
def test_a_prompt_may_end_in_a_question_mark(shell: InteractiveShell, typed: str, python: str | None):
    transformed = shell.transform_cell(typed)
    assert "pinfo" not in transformed
    compile(transformed, "cell", "exec")
    if python:
        assert transformed.strip() == python


@pytest.mark.parametrize("typed", ["%llm?", "%llm??", "x?", "%time?", "x = %timeit?", "%llmx Why?", "llm?"])
def test_help_on_a_name_is_left_to_ipython(shell: InteractiveShell, typed: str):
    assert "pinfo" in shell.transform_cell(typed)


def test_text_in_strings_and_cells_is_not_touched(shell: InteractiveShell):
    assert shell.transform_cell("s = '''\n%llm Why?\n'''") == "s = '''\n%llm Why?\n'''\n"
    assert "'Why?\\nx = %llm How?\\n'" in shell.transform_cell("%%llm\nWhy?\nx = %llm How?")


def test_nothing_is_left_when_it_is_removed(shell: InteractiveShell):
    question_mark.remove(shell)
    assert "pinfo" in shell.transform_cell("%llm Why?")
