"""What can stand at the end of a line that begins with %llm: verbs, flags, choices, names that exist now.

Nothing here may be slow or use the network. This file must not know what a verb does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from llmlab.magics import grammar
from llmlab.magics.options import Argument, Option, Verb
from llmlab.magics.parsing import words


def complete(rest: str, in_cell: bool, namespace: dict[str, Any]) -> tuple[list[str] | None, str]:
    """What fits at the end of `rest`, the text behind %llm, and the piece of it that is typed already.

    None instead of a list where this grammar has nothing to say.
    """
    typed = [word.text for word in words(rest)]
    fragment = "" if rest[-1].isspace() or not typed else typed.pop()
    verb, used = _verb(typed, in_cell)
    offered = _offers(verb, typed[used:], fragment, namespace)
    if used == 0 and not typed:
        firsts = _first_words(in_cell) if not fragment.startswith("-") else []
        offered = [*firsts, *(offered or [])]
    elif used == 0 and typed[0] in grammar.FIRST_WORDS and len(typed) == 1:  # trace
        offered = [name.split()[1] for name in grammar.VERBS if name.startswith(f"{typed[0]} ")]
    if offered is None:
        return None, fragment
    return [text for text in offered if text.startswith(fragment)], fragment


def _verb(typed: list[str], in_cell: bool) -> tuple[Verb, int]:
    """The verb of the words typed so far, and how many words it took."""
    for count in (2, 1):
        verb = grammar.VERBS.get(" ".join(typed[:count])) if len(typed) >= count else None
        if verb is not None and (not in_cell or verb.form != "line"):
            return verb, count
    return (grammar.CELL if in_cell else grammar.PROMPT), 0


def _first_words(in_cell: bool) -> list[str]:
    if in_cell:
        return [verb.name for verb in grammar.VERBS.values() if verb.form != "line"]
    return sorted(grammar.FIRST_WORDS)


def _offers(verb: Verb, typed: list[str], fragment: str, namespace: dict[str, Any]) -> list[str] | None:
    previous = verb.option(typed[-1]) if typed else None
    if previous is not None and previous.metavar:
        return _values(previous, namespace)
    flags = [option for word in typed if (option := verb.option(word)) is not None]
    if flags and flags[-1].many and not fragment.startswith("-"):
        return _values(flags[-1], namespace)
    if fragment.startswith("-"):
        return [name for option in verb.options for name in option.names if name.startswith("--") or len(fragment) < 2]
    position = _num_plain(verb, typed)
    if position < len(verb.arguments):
        return _values(verb.arguments[position], namespace)
    return None if verb.free_text else []


def _num_plain(verb: Verb, typed: list[str]) -> int:
    """How many words are neither flags nor values of flags."""
    count, is_value = 0, False
    for word in typed:
        option = verb.option(word)
        if option is None and not is_value:
            count += 1
        is_value = option is not None and bool(option.metavar)
    return count


def _values(option: Option | Argument, namespace: dict[str, Any]) -> list[str] | None:
    return list(option.choices) if option.choices else live_names(option.live, namespace)


def live_names(kind: str, namespace: dict[str, Any]) -> list[str] | None:
    """Names of one kind that exist now; None for files, which IPython completes itself."""
    if kind == "file":
        return None
    if kind == "variable":
        return sorted(name for name in namespace if not name.startswith("_") and name != "Out")
    if kind == "verb":
        return sorted(grammar.VERBS)
    if kind == "handle":
        loading = sys.modules.get("llmlab.engines.loading")  # not imported: nothing is loaded
        return sorted(loading.handles()) if loading else []
    return list(_known(kind))


def _known(kind: str) -> Iterable[str]:
    if kind == "engine":
        from llmlab.engines.base import ENGINES

        return ["auto", "both", *ENGINES]
    if kind == "workload":
        from llmlab.bench.workloads import workloads

        return workloads()
    if kind == "quant":
        from llmlab.models import QUANTS

        return QUANTS
    if kind in ("lab", "question"):
        from llmlab.labs.offers import labs, questions

        return labs() if kind == "lab" else questions()
    if kind == "model":
        from llmlab.models import known

        return [model.name for model in known()]
    return []
