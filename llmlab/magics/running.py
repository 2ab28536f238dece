"""From a typed line to what it does: find the verb, read the flags, call the action.

This file must not know any verb: the grammar names their actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmlab.errors import LlmlabError
from llmlab.magics import manual
from llmlab.magics.interpolate import interpolate
from llmlab.magics.line import CodeShown, Line, action_of
from llmlab.magics.names import user_names
from llmlab.magics.options import Verb
from llmlab.magics.parsing import parse, words
from llmlab.magics.resolve import split_cell_verb, split_verb

if TYPE_CHECKING:
    from llmlab.magics.llmlab_magics import LLMLab


def run(lab: LLMLab, line: str, cell: str | None, local_ns: Mapping[str, Any] | None) -> object:
    """Do what the line says; its value.

    Raises: UsageError for wrong syntax; LlmlabError for what cannot be done, shown as one message.
    """
    verb, rest = split_verb(line) if cell is None else split_cell_verb(line)
    if asks_for_help(verb, rest):
        print(manual.help_text(verb))
        return None
    names = user_names(lab.shell, local_ns)
    args = parse(verb, rest, lambda text: interpolate(text, names))
    try:
        return action_of(verb)(Line(lab, verb, args, cell, names))
    except CodeShown:
        return None
    except LlmlabError as error:
        show_message_only(error)
        raise


def asks_for_help(verb: Verb, rest: str) -> bool:
    """Whether --help or -h is among the flags; of a prompt only as its last word: "what does -h do" is text."""
    typed = [word.text for word in words(rest)]
    flags = typed[: typed.index("--")] if "--" in typed else typed
    if verb.free_text:
        flags = flags[-1:]
    return bool({"-h", "--help"} & set(flags))


def show_message_only(error: LlmlabError) -> None:
    """IPython shows this error without a traceback: the lines of our own code say nothing to a user."""
    red, plain = "\x1b[31m", "\x1b[0m"
    shown = [f"{red}{type(error).__name__}{plain}: {error}"]
    error._render_traceback_ = lambda *_: shown  # type: ignore[attr-defined]
