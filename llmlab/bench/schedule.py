"""Whether requests came when they should: how late each one was in the engine's hands, beyond what the engine was busy.

The clock of a request starts at its due moment, whatever happens, so a slow engine cannot hide its queue by slowing the
generator down (coordinated omission). This file must not know engines or clocks.
"""

from __future__ import annotations

from bisect import bisect_left

from llmlab.trace import Trace
from llmlab.trace.times import start_s

TURN_S = 0.001  # between the last look at the clock and the forward pass


def lateness_s(trace: Trace) -> tuple[float, ...]:
    """For each request, seconds from its due moment to the step that first knew it, the step that ran then not counted.

    A request that comes during a forward pass, or a millisecond before it, can be seen when that pass has ended: only
    what comes on top is late.
    Left out: requests that the trace does not show at once (more than 64 waited), and engines whose steps carry no
    durations.

    >>> from llmlab.trace.example import two_requests
    >>> lateness_s(two_requests())  # both are in the first step that could have them
    (0.0, 0.0)
    """
    steps = trace.step_records
    starts = [start_s(step) for step in steps]
    if None in starts or not steps:
        return ()
    began = [at_s for at_s in starts if at_s is not None]
    seen_in: dict[str, int] = {}
    for number, step in enumerate(steps):
        for request_id in (*(row.request_id for row in step.scheduled), *step.waiting):
            seen_in.setdefault(request_id, number)
    found = []
    for request in trace.request_records:
        if (first_seen := seen_in.get(request.request_id)) is None:
            continue
        due_s = request.arrival_s
        running = bisect_left(began, due_s + TURN_S) - 1
        free_s = max(due_s, steps[running].t_s) if running >= 0 else due_s
        following = steps[running + 1] if first_seen > running and running + 1 < len(steps) else None
        could_be_told = following is None or following.num_waiting <= len(following.waiting)
        if could_be_told and began[first_seen] >= due_s:
            found.append(max(0.0, began[first_seen] - free_s))
    return tuple(found)
