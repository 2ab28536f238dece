"""What happened in a step of an engine that is seen from outside: what arrived, and what has ended.

This file must not know widgets, pages or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmlab.views.narration_base import Events
from llmlab.views.phrases import MAX_NAMES, Phrase, bold, count, joined, one_or_many, plain, spaced

_ENDS = {"stop": "ends (stop)", "length": "ends (length)", "error": "fails"}


def narrate_arrivals(came: Sequence[Sequence[int]], events: Events, name: Callable[[int], str]) -> Phrase:
    """`came`: [request, tokens] of each that got some.

    >>> narrate_arrivals([[0, 3]], Events([0, 0, 0], [], finished=[[0, "length", 8]]), "r{}".format)
    [['Arrived: 3 tokens of ', 0], ['r0', 1], ['. ', 0], ['r0', 1], [' ends (length): 8 tokens.', 0]]
    """
    clauses = [_arrived(came, name)] if came else []
    for request, reason, num_output in events.finished[:MAX_NAMES]:
        verb = _ENDS.get(reason, "is stopped")
        clauses.append(joined([bold(name(request)), f" {verb}: {count(num_output, 'token')}."]))
    if (more := len(events.finished) - MAX_NAMES) > 0:
        clauses.append(plain(f"{more} more {one_or_many(more, 'ends', 'end')}."))
    return spaced(clauses)


def _arrived(came: Sequence[Sequence[int]], name: Callable[[int], str]) -> Phrase:
    if len(came) > MAX_NAMES:
        num_tokens = sum(n for _, n in came)
        return plain(f"Arrived: {count(num_tokens, 'token')} of {count(len(came), 'request')}.")
    (first, n), *rest = came
    parts: list[str | Phrase] = [f"Arrived: {count(n, 'token')} of ", bold(name(first))]
    for request, more in rest:
        parts += [f", {more} of ", bold(name(request))]
    return joined([*parts, "."])
