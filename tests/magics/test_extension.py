"""%load_ext llmlab: quick, light, and gone without a trace after %unload_ext."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llmlab
from llmlab.magics import manual

HEAVY = "torch llama_cpp pandas numpy plotly anywidget ipywidgets markdown_it jinja2 zmq msgspec psutil".split()
LOAD = f"""
import sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before, started = set(sys.modules), time.perf_counter()
shell.run_line_magic("load_ext", "llmlab")
took_s = time.perf_counter() - started
print(took_s, *sorted((set(sys.modules) - before) & set({HEAVY})))
"""


def test_loading_takes_20_ms_at_most_and_imports_nothing_heavy():
    outputs = [subprocess.check_output([sys.executable, "-c", LOAD], text=True).split() for _ in range(4)]
    assert [heavy for _, *heavy in outputs] == [[]] * 4
    fastest_s = min(float(took_s) for took_s, *_ in outputs)
    print(f"%load_ext llmlab: {fastest_s * 1000:.1f} ms")
    assert fastest_s <= 0.020


def test_unloading_takes_everything_out(shell: InteractiveShell):
    llmlab.unload_ipython_extension(shell)
    before = parts(shell)
    llmlab.load_ipython_extension(shell)
    assert parts(shell) != before
    llmlab.unload_ipython_extension(shell)
    assert parts(shell) == before
    assert [shell.find_line_magic(n) or shell.find_cell_magic(n) for n in ("llm", "llmlab")] == [None, None]


def test_reloading_leaves_one_of_each(shell: InteractiveShell):
    before = parts(shell)
    for _ in range(3):
        shell.run_line_magic("reload_ext", "llmlab")
    assert parts(shell) == before


def test_the_alias_does_the_same(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]):
    shell.run_line_magic("llmlab", "help")
    by_alias = capsys.readouterr().out
    shell.run_line_magic("llm", "help")
    assert by_alias == capsys.readouterr().out != ""


def test_a_magic_of_that_name_from_elsewhere_is_named_in_one_line(shell: InteractiveShell):
    llmlab.unload_ipython_extension(shell)

    def llm(line: str) -> None:
        return None

    llm.__module__ = "some_other_llm"
    shell.register_magic_function(llm, "line", "llm")
    with pytest.warns(UserWarning, match=r"^%llm belonged to some_other_llm; from here on it is llmlab's\.$"):
        llmlab.load_ipython_extension(shell)


def test_help_on_the_magic_shows_the_table(shell: InteractiveShell):
    assert inspect.cleandoc(shell.object_inspect("%llm")["docstring"]) == manual.table()


def parts(shell: InteractiveShell) -> list[int]:
    """How much there is of all that an extension can add to."""
    pages = shell.display_formatter.formatters["text/html"]
    return [
        len(shell.Completer.custom_matchers),
        len(shell.configurables),
        len(shell.input_transformer_manager.token_transformers),
        len(pages.deferred_printers) + len(pages.type_printers),
        len(shell.events.callbacks["post_run_cell"]),
    ]
