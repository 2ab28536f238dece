"""A pipeline of stages: who waits for whom."""

from __future__ import annotations

import pytest

from llmlab.engines.pipeline import bubble, pipeline
from llmlab.errors import EngineError


def ends(turns: list, stage: int) -> list[float]:
    return [turn.end_s for turn in turns if turn.stage == stage]


def test_one_batch_at_a_time_leaves_all_stages_but_one_idle():
    turns = pipeline([4.0, 4.0, 4.0], 4, num_in_flight=1)
    assert ends(turns, 3) == [4.0, 8.0, 12.0]  # as on one machine
    assert bubble(turns) == 0.75


def test_as_many_batches_as_stages_wait_only_while_the_pipeline_fills_and_drains():
    turns = pipeline([4.0] * 6, 4)
    assert ends(turns, 3) == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    # 3 of 9 turns of each stage: (stages - 1) / (batches + stages - 1)
    assert bubble(turns) == pytest.approx(1 / 3)


def test_a_long_batch_holds_up_the_short_one_behind_it():
    turns = pipeline([6.0, 2.0, 2.0], 2)
    assert [(turn.batch, turn.start_s, turn.end_s) for turn in turns if turn.stage == 1] == [
        (0, 3.0, 6.0), (1, 6.0, 7.0), (2, 7.0, 8.0),
    ]  # fmt: skip
    # its first half was done at 4.0; the third came in when the first was out, at 6.0
    assert [turn.start_s for turn in turns if turn.stage == 0] == [0.0, 3.0, 6.0]


def test_a_way_between_stages_is_waited_for_when_nothing_else_is_there_to_do():
    alone, both = (pipeline([2.0] * 10, 2, num_in_flight=n, hop_s=0.5) for n in (1, 3))
    assert ends(alone, 1)[-1] == 25.0
    assert ends(both, 1)[-1] == 11.5


def test_what_cannot_be_is_named():
    with pytest.raises(EngineError, match="num_stages is 0; it must be 1 or more"):
        pipeline([1.0], 0)
    with pytest.raises(EngineError, match="num_in_flight is 0"):
        pipeline([1.0], 2, num_in_flight=0)
    assert bubble([]) is None
