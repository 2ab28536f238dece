"""The help texts, made from the grammar."""

from __future__ import annotations

from collections.abc import Iterable

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.grammar import CELL, PROMPT, STATUS, VERBS
from llmlab.magics.options import Verb
from llmlab.magics.parsing import to_send
from llmlab.magics.resolve import nearly_a_verb


def help_of(name: str = "") -> str:
    """The flags of the verb of that name, of "prompt"; without a name, all that can be typed.

    Raises: UsageError with the nearest verb.
    """
    if not name:
        return table()
    if name == "prompt":
        return help_text(PROMPT)
    if name in VERBS:
        return help_text(VERBS[name])
    below = [verb for verb in VERBS.values() if verb.name.startswith(f"{name} ")]
    if below:
        return "\n\n".join(map(help_text, below))
    near = nearly_a_verb(name)
    hint = tr(" Did you mean {name}?", name=near) if near else tr(" `%llm help` lists them.")
    raise UsageError(tr("No verb {name!r}.", name=name) + hint + to_send(f"help {name}"))


def help_text(verb: Verb) -> str:
    """What `%llm help VERB` prints."""
    rows: list[tuple[str, str]] = [(argument.name, tr(argument.help)) for argument in verb.arguments]
    rows += [(", ".join(option.names) + f" {option.metavar}".rstrip(), tr(option.help)) for option in verb.options]
    return "\n".join(
        [verb.title + (tr(" [flags]") if verb.options else ""), tr(verb.help), *(f"  {row}" for row in _columns(rows))]
    )


def table() -> str:
    """All that can be typed, one line each."""
    asked = (STATUS, PROMPT, CELL)
    rows = [(verb.title, tr(verb.help)) for verb in (*asked, *VERBS.values())]
    return "\n".join(
        [
            *_columns(rows),
            "",
            tr("`%llm help VERB` or `--help` lists the flags; `%llm -- text` sends any text as a prompt."),
        ]
    )


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(left) for left, _ in rows), default=0)
    return [f"{left:{width}}  {right}" for left, right in rows]
