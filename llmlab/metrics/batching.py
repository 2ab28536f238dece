"""How a scheduler shared the steps: seats left empty, waiting for the first token, the longest gap. None: not known.

Counted in steps and tokens of work, so that the figures are the same on every machine. This file must not know any
engine, clock or file.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.trace import Step, Trace


def empty_seats(trace: Trace) -> float | None:
    """Share of the seats (max_num_seqs a step) with nobody in them, over the steps after which somebody waited.

    None when nobody ever waited, or the header does not tell max_num_seqs.

    >>> from llmlab.trace import Header, Step, Trace
    >>> empty_seats(Trace(Header(engine="simulated", max_num_seqs=4), (), (Step(step=0, t_s=1.0, num_waiting=2),)))
    1.0
    """
    steps = [step for step in trace.step_records if step.num_waiting]
    num_seats = len(steps) * (trace.header.max_num_seqs or 0)
    return 1 - sum(len(step.scheduled) for step in steps) / num_seats if num_seats else None


def steps_to_first_token(trace: Trace) -> dict[str, int]:
    """request_id -> steps from its arrival to its first token, that one included: 1 is the best there is.

    A request has arrived when a step names it for the first time, waiting or scheduled.

    >>> from llmlab.trace.example import two_requests
    >>> steps_to_first_token(two_requests())
    {'a': 1, 'b': 1}
    """
    arrived: dict[str, int] = {}
    found: dict[str, int] = {}
    for i, step in enumerate(trace.step_records):
        for request_id in (*(row.request_id for row in step.scheduled), *step.waiting):
            arrived.setdefault(request_id, i)
        for token in step.tokens:
            if token.request_id in arrived:
                found.setdefault(token.request_id, i - arrived[token.request_id] + 1)
    return found


@dataclass(frozen=True, slots=True)
class Gap:
    """Between two tokens of one request: what the engine computed in it, the second token included."""

    request_id: str
    # The step that brought the second token.
    step: int
    num_tokens: int
    # None when the steps carry no durations.
    gap_s: float | None


def longest_gap(trace: Trace) -> Gap | None:
    """The gap with the most tokens of work in it, the first of equals. None when no request got two tokens.

    >>> from llmlab.trace.example import two_requests
    >>> longest_gap(two_requests())
    Gap(request_id='a', step=1, num_tokens=2, gap_s=1.0)
    """
    longest: Gap | None = None
    work: dict[str, int] = {}  # since the last token of each request
    took: dict[str, float | None] = {}
    for step in trace.step_records:
        step_s = _step_s(step)
        for request_id in work:
            work[request_id] += step.num_scheduled_tokens
            before_s = took[request_id]
            took[request_id] = None if before_s is None or step_s is None else before_s + step_s
        for token in step.tokens:
            name = token.request_id
            if name in work and (longest is None or work[name] > longest.num_tokens):
                longest = Gap(name, step.step, work[name], took[name])
            work[name], took[name] = 0, 0.0
        for name in step.finished:
            work.pop(name, None)
            took.pop(name, None)
    return longest


def _step_s(step: Step) -> float | None:
    parts = (step.schedule_s, step.forward_s, step.update_s)
    known = [part for part in parts if part is not None]
    return sum(known) if step.forward_s is not None else None
