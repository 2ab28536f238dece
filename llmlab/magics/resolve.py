"""Which verb a line means: %llm VERB ..., %%llm VERB ..., or a prompt.

This file must not know what a verb does.
"""

from __future__ import annotations

import difflib

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.grammar import CELL, FIRST_WORDS, PROMPT, STATUS, VERBS
from llmlab.magics.options import Verb
from llmlab.magics.parsing import to_send, words


def split_verb(line: str) -> tuple[Verb, str]:
    """The verb of a %llm line and the rest of the line; a line that starts with no verb is a prompt.

    Raises: UsageError for what is nearly a verb: alone on its line, or with a flag that only the verb has.
    """
    line = line.strip()
    first, *others = line.split(maxsplit=2) or [""]
    if not first:
        return STATUS, ""
    if first in VERBS:
        return VERBS[first], line.removeprefix(first).strip()
    if first in FIRST_WORDS:
        return _sub_verb(line, first, others[0] if others else "")
    if first in ("-h", "--help") and not others:
        return VERBS["help"], ""
    if first.rstrip("?") in VERBS and first.endswith("?") and not others:
        return VERBS["help"], first.rstrip("?")
    if first == "--show-code" and not others:
        return STATUS, line
    near = nearly_a_verb(first)
    if near and (not others or _has_flag_of(near, line)):
        raise UsageError(
            tr(
                "{word!r} is no verb. Did you mean `%llm {near}`? To send it as a prompt: `%llm -- {line}`",
                word=first,
                near=near,
                line=line,
            )
        )
    return PROMPT, line


def split_cell_verb(line: str) -> tuple[Verb, str]:
    """The verb of a %%llm line and the rest of the line; without a verb, the cell is a prompt.

    Raises: UsageError when the verb takes no cell.
    """
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    verb = VERBS.get(first)
    if verb is None and first not in FIRST_WORDS:
        return CELL, line
    if verb is None or verb.form == "line":
        raise UsageError(
            tr("{verb} takes no cell: type `%llm {line}` on a line of its own.", verb=first, line=line.strip())
        )
    return verb, line.strip().removeprefix(first).strip()


def _sub_verb(line: str, first: str, second: str) -> tuple[Verb, str]:
    verb = VERBS.get(f"{first} {second}")
    if verb is not None:
        return verb, line.removeprefix(first).strip().removeprefix(second).strip()
    known = [name.split()[1] for name in VERBS if name.startswith(f"{first} ")]
    if second:
        told = tr("%llm {verb} needs {known}, and got {got!r}.", verb=first, known=", ".join(known), got=second)
    else:
        told = tr("%llm {verb} needs {known}.", verb=first, known=", ".join(known))
    raise UsageError(told + to_send(line))


def nearly_a_verb(word: str) -> str | None:
    # 0.75: "unlod", "laod" and "model" are typing errors, "hello" (0.67 to "help") is a greeting.
    near = difflib.get_close_matches(word.lower(), FIRST_WORDS, n=1, cutoff=0.75)
    return near[0] if near else None


def _has_flag_of(verb_name: str, line: str) -> bool:
    flags = {word.text for word in words(line) if not PROMPT.option(word.text)}
    return any(VERBS[verb_name].option(flag) for flag in flags) if verb_name in VERBS else False
