"""Playing a workload on a real engine: requests that arrive when the engine has taken so many steps.

Counted in steps, a run is the same on every machine. This file must not know any lab or engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from llmlab.engines.handle import EngineHandle
from llmlab.trace import Trace


def play(engine: EngineHandle, requests: Sequence[Mapping[str, Any]], **options: Any) -> Trace:
    """The trace of these requests, each a dict as batch() takes it, with "arrival_step" beside it (0 when it has none).

    `options`: what all of them share (see generate()). Raises: RequestError while the engine is busy or paused; what
    Run.wait() raises.
    """
    engine.require_idle()
    runs, num_steps = [], 0
    engine.pause()
    try:
        for arrival_step, wave in groupby(sorted(requests, key=_arrival_step), key=_arrival_step):
            if arrival_step > num_steps:
                engine.step(arrival_step - num_steps)
                num_steps = arrival_step
            asked = [{name: v for name, v in request.items() if name != "arrival_step"} for request in wave]
            runs.append(engine.batch(asked, **options))
    finally:
        engine.resume()
    for run in runs:
        run.wait()
    return engine.trace_of(runs)


def _arrival_step(request: Mapping[str, Any]) -> int:
    return int(request.get("arrival_step", 0))


def after_interrupt(block_pool: type, prompt: str, **options: Any) -> Any:
    """What a prompt is answered whose first forward pass was cut: see cut_pass.py."""
    from llmlab.labs.cut_pass import after_interrupt as run

    return run(block_pool, prompt, **options)
