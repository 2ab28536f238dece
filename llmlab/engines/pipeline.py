"""A pipeline: each stage has some of the layers and hands a batch on to the next. Who computes when, and who waits.

This file must not know schedulers or requests: it sees how long each batch takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.errors import EngineError


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch on one stage, in seconds since the first batch came in."""

    batch: int
    stage: int
    start_s: float
    end_s: float


def pipeline(
    batch_s: Sequence[float], num_stages: int, *, num_in_flight: int | None = None, hop_s: float = 0.0
) -> list[Turn]:
    """The turns of batches in the order they come. `batch_s`: what each takes on one machine with all the layers.

    A batch comes in when the first stage is free and less than `num_in_flight` of them (the number of stages, if not
    given) are on their way: a request is in one batch at a time, since its next token needs the one before. `hop_s`:
    what the way from stage to stage takes.

    >>> [(turn.stage, turn.start_s, turn.end_s) for turn in pipeline([2.0, 2.0], 2)]
    [(0, 0.0, 1.0), (1, 1.0, 2.0), (0, 1.0, 2.0), (1, 2.0, 3.0)]

    Raises: EngineError for a number of stages or batches below 1.

    Source: vllm/v1/engine/core.py step_with_batch_queue: as many batches as stages.
    """
    num_in_flight = num_stages if num_in_flight is None else num_in_flight
    for name, number in (("num_stages", num_stages), ("num_in_flight", num_in_flight)):
        if number < 1:
            raise EngineError(f"{name} is {number}; it must be 1 or more.")
    turns: list[Turn] = []
    free_s = [0.0] * num_stages
    done_s: list[float] = []
    for batch, took_s in enumerate(batch_s):
        moment_s = done_s[batch - num_in_flight] if batch >= num_in_flight else 0.0
        for stage in range(num_stages):
            start_s = max(moment_s, free_s[stage])
            free_s[stage] = start_s + took_s / num_stages
            turns.append(Turn(batch, stage, start_s, free_s[stage]))
            moment_s = free_s[stage] + hop_s
        done_s.append(free_s[-1])
    return turns


def bubble(turns: Sequence[Turn]) -> float | None:
    """The share of their time in which stages wait, from the first turn to the last; None without turns.

    >>> bubble(pipeline([2.0, 2.0], 2, num_in_flight=1))
    0.5
    """
    if not turns:
        return None
    num_stages = 1 + max(turn.stage for turn in turns)
    whole_s = num_stages * (max(turn.end_s for turn in turns) - min(turn.start_s for turn in turns))
    return 1 - sum(turn.end_s - turn.start_s for turn in turns) / whole_s
