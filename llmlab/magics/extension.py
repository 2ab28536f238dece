"""What %load_ext llmlab puts into a shell, and how it comes out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llmlab.magics import NAMES, question_mark
from llmlab.magics.complete import make_matcher
from llmlab.magics.llmlab_magics import LLMLab

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def _result_html(result: Any) -> str:
    from llmlab.magics import render

    return render.answer(result.text, result.footer)["text/html"]


def _run_html(run: Any) -> str:
    from llmlab.magics.verbs.batch_view import card

    return card(run)._repr_html_()


def _lesson_html(error: Any) -> str:
    from llmlab.magics import lessons

    return lessons.html(error)


def _after_cell(result: Any) -> None:
    if hasattr(result.error_in_exec, "trace"):
        from llmlab.magics import lessons

        lessons.show_picture(result.error_in_exec)


KINDS = ("line", "cell")
# (module, class) -> how it looks in a front end
PAGES = {
    ("llmlab.engines.result", "Result"): _result_html,
    ("llmlab.engines.run", "Run"): _run_html,
    ("llmlab.errors", "BrokenContract"): _lesson_html,
}


class Extension:
    """The magics, the matcher and the formatter of one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.lab = LLMLab(shell)
        for kind in KINDS:
            # The alias is the same function, not a MagicAlias: that one would look for variables in its own frame.
            shell.magics_manager.magics[kind] |= dict.fromkeys(NAMES, cast(Any, self.lab).llm)
        question_mark.install(shell)
        self._matcher = make_matcher(shell)
        shell.Completer.custom_matchers.insert(0, self._matcher)
        # by name: the classes are imported with the first engine, not with the extension
        self._pages: Any = cast(Any, shell.display_formatter).formatters["text/html"]
        for (module, name), page in PAGES.items():
            self._pages.for_type_by_name(module, name, page)
        shell.events.register("post_run_cell", _after_cell)

    def close(self) -> None:
        shell, magics = self._shell, self._shell.magics_manager.magics
        for kind in KINDS:
            for name in NAMES:
                if getattr(magics[kind].get(name), "__self__", None) is self.lab:
                    del magics[kind][name]
        question_mark.remove(shell)
        shell.Completer.custom_matchers.remove(self._matcher)
        cast(Any, shell).configurables.remove(self.lab)
        for module, name in PAGES:
            self._pages.pop(f"{module}.{name}", None)
        shell.events.unregister("post_run_cell", _after_cell)
        self.lab.shown_once.close()
