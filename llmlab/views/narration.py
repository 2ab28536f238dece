"""What happened in a step, in sentences: at most three of events, and what was used of the token budget.

This file must not know widgets, pages or engines; what is peculiar to cells is in narration_cells.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from llmlab.trace import CellDelta, Incident, Step
from llmlab.views.narration_base import Events
from llmlab.views.narration_blocks import BlockTeller
from llmlab.views.narration_cells import CellTeller
from llmlab.views.phrases import Clause, Phrase, plain, spaced

MAX_CLAUSES = 3


def narrate(step: Step, events: Events, name: Callable[[int], str], head: Mapping[str, Any]) -> Phrase:
    """The sentences of a step as [[text, 1 if bold else 0], ...]."""
    kind = CellTeller if isinstance(step.kv, CellDelta) else BlockTeller
    teller = kind(step, events, name, head)
    is_plain = not (events.rows or events.preempted or events.finished)  # requests go on, as in most steps
    if is_plain:
        clauses: list[Clause] = [*teller.evicted(), *teller.decode(), *teller.waiting()]
    else:
        clauses = list(islice(_all(teller), MAX_CLAUSES))
    clauses += teller.budget()
    return spaced(clauses)


def _all(teller: BlockTeller | CellTeller) -> Iterator[Clause]:
    """In the order of what matters most."""
    yield from teller.preempted()
    yield from teller.returning()
    yield from teller.admitted()
    yield from teller.prefill()
    yield from teller.evicted()
    yield from teller.finished()
    yield from teller.decode()
    yield from teller.drafts()
    yield from teller.waiting()


def died(step: int, cause: str) -> Phrase:
    """The host of the engine is gone; `step` is the one that it did not finish.

    >>> died(41, "SIGSEGV")
    [['The engine died at step 41: SIGSEGV. The trace up to step 40 is kept.', 0]]
    """
    return plain(f"The engine died at step {step}: {cause}. The trace up to step {step - 1} is kept.")


def ended(incident: Incident, last_step: int) -> Phrase:
    """What ended a trace whose last step is `last_step`.

    >>> ended(Incident(incident="cut", t_s=0.0, text="line 118 is broken"), 117)
    [['The trace ends with step 117: line 118 is broken.', 0]]
    """
    text = incident.text.rstrip(".")
    if incident.incident == "died":
        return died(last_step + 1, text or "it ended unexpectedly")
    return plain(f"The trace ends with step {last_step}{': ' if text else ''}{text}.")


def paused(step: int) -> Phrase:
    """
    >>> paused(27)
    [['Paused before step 27.', 0]]
    """
    return plain(f"Paused before step {step}.")


__all__ = ["Events", "died", "ended", "narrate", "paused"]
